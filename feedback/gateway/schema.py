"""What the API takes and gives, as pydantic models; the published OpenAPI document is made from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from store.records import SignalKind, State

MAX_TEXT = 1 << 20
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Limit = Annotated[int, Field(ge=1, le=1 << 20)]
Word = Annotated[str, Field(max_length=1000)]
Stop = Word | Annotated[list[Word], Field(max_length=16)]


class Lenient(BaseModel):
    """A request: fields that are not known are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="ignore")


class Part(Lenient):
    """A part of a message; only text is understood."""

    type: str
    text: Text | None = None


class ChatMessage(Lenient):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(max_length=1000)] | None = None
    name: Annotated[str, Field(max_length=100)] | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(max_length=100)] | None = None
    tool_call_id: Annotated[str, Field(max_length=200)] | None = None


class StreamOptions(Lenient):
    """How a stream ends."""

    include_usage: bool | None = None


class JsonSchema(Lenient):
    """The schema an answer must follow."""

    name: Annotated[str, Field(max_length=100)] | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Lenient):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Function(Lenient):
    """A function the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class Tool(Lenient):
    """A tool the model may use."""

    type: Literal["function"]
    function: Function


class NamedFunction(Lenient):
    """A function by name."""

    name: Annotated[str, Field(max_length=100)]


class NamedTool(Lenient):
    """A tool by name."""

    type: Literal["function"]
    function: NamedFunction


class Drawing(Lenient):
    """What chat and plain completions share."""

    model: Annotated[str, Field(max_length=200)] | None = None
    max_tokens: Limit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None


class ChatRequest(Drawing):
    """A conversation to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Limit | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None


class CompletionRequest(Drawing):
    """Text to be continued."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: Text | None = None


class EmbeddingRequest(Lenient):
    """Texts to be embedded."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    model: Annotated[str, Field(max_length=200)] | None = None


class NewCorrection(Lenient):
    """What an answer should have been."""

    completion_id: Annotated[str, Field(min_length=1, max_length=200)]
    corrected: Text
    reason: Text = ""
    share: bool = True


class CorrectionChange(Lenient):
    """The owner's later word on a correction; `undo` takes the newest one back."""

    state: State | None = None
    share: bool | None = None
    undo: bool = False


class NewRating(Lenient):
    """Thumbs."""

    completion_id: Annotated[str, Field(min_length=1, max_length=200)]
    rating: Literal["up", "down"]


class NewSignal(Lenient):
    """Weak evidence on an answer."""

    completion_id: Annotated[str, Field(min_length=1, max_length=200)]
    kind: SignalKind
    text: Text = ""


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


class Model(BaseModel):
    """A model on offer."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models on offer."""

    object: Literal["list"] = "list"
    data: list[Model]


class Usage(BaseModel):
    """Tokens of a request and its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Provenance(BaseModel):
    """Who answered."""

    adapters: list[str]  # digests, in order of application
    source: str  # device or upstream
    fallback: str | None = None  # why the upstream did not answer, where it was asked
    logged: bool
    confidence: float | None = None  # mean log-probability of the device's answer


class Chat(BaseModel):
    """An answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    system_fingerprint: str
    corrigible: Provenance


class Continuation(Chat):
    """A text continued."""

    object: Literal["text_completion"] = "text_completion"  # type: ignore[assignment]


class CorrectionView(BaseModel):
    """One correction with what it corrects."""

    id: str
    completion_id: str
    request: str
    answer: str
    corrected: str
    reason: str
    state: State
    share: bool
    created: float
    model: str
    learned: bool


class CorrectionList(BaseModel):
    """Corrections, newest first."""

    data: list[CorrectionView]
    has_more: bool


class RatingView(BaseModel):
    """A rating that was kept."""

    id: str
    completion_id: str
    rating: Literal["up", "down"]


class SignalView(BaseModel):
    """A signal that was kept."""

    id: str
    completion_id: str
    kind: SignalKind
