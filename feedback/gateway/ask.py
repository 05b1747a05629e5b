"""From a request as the API takes it to what the engine is asked: turns, sampling, tools."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback.gateway.errors import ApiError, unsupported
from feedback.gateway.schema import ChatMessage, ChatRequest, CompletionRequest, Drawing, NamedTool, Tool
from feedback.gateway.toolcalls import call_grammar
from feedback.llama import JSON_GRAMMAR, schema_grammar
from feedback.stream import Sampling
from feedback.template import ToolTurn, Turn
from store.errors import CorrigibleError
from store.records import Message, Role

DEPTH = 32  # of a JSON schema
SIZE = 64 * 1024  # bytes of a JSON schema
DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """One conversation to be answered.

    Attributes:
        tools: function definitions shown to the model; empty: none, or it may not use them.
        stream, usage: whether the answer is streamed, and ends with a chunk that counts tokens.
        logprobs: whether probabilities are wanted.
        plain: it can be recorded: text turns only, the user's last.
    """

    turns: tuple[Turn, ...]
    sampling: Sampling
    tools: tuple[dict[str, Any], ...] = ()
    stream: bool = False
    usage: bool = False
    logprobs: bool = False

    @property
    def messages(self) -> tuple[Message, ...] | None:
        """The conversation as it can be recorded; None when it cannot."""
        plain = tuple(turn for turn in self.turns if isinstance(turn, Message))
        if not plain or self.tools or len(plain) != len(self.turns) or plain[-1].role != "user":
            return None
        return plain


def chat_ask(request: ChatRequest, *, takes_tools: bool, default_tokens: int) -> Ask:
    """Return what a chat request asks.

    Raises:
        ApiError: 400 for what this server or this model cannot do.
    """
    _refuse_common(request)
    tools = _tools(request, takes_tools)
    top = request.top_logprobs or 0
    if top and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs.", code="invalid_value", param="top_logprobs")
    return Ask(
        turns=tuple(_turn(message, i) for i, message in enumerate(request.messages)),
        sampling=_sampling(request, request.max_completion_tokens or request.max_tokens or default_tokens,
                           grammar=_grammar(request, tools), alternatives=top),
        tools=tools,
        stream=bool(request.stream),
        usage=bool(request.stream_options and request.stream_options.include_usage),
        logprobs=bool(request.logprobs),
    )  # fmt: skip


def text_ask(request: CompletionRequest, default_tokens: int) -> tuple[str, Ask]:
    """Return the text to continue and how.

    Raises:
        ApiError: 400 for what this server cannot do.
    """
    _refuse_common(request)
    if request.echo:
        raise unsupported("echo", "The prompt is not repeated.")
    if request.suffix:
        raise unsupported("suffix", "Text is continued, not filled in.")
    if request.best_of not in (None, 1):
        raise unsupported("best_of", "One answer is drawn.")
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[0]
    sampling = _sampling(request, request.max_tokens or default_tokens, alternatives=request.logprobs or 0)
    usage = bool(request.stream_options and request.stream_options.include_usage)
    logprobs = request.logprobs is not None
    return prompt, Ask((), sampling, stream=bool(request.stream), usage=usage, logprobs=logprobs)


def _sampling(request: Drawing, max_tokens: int, *, grammar: str = "", alternatives: int = 0) -> Sampling:
    """How the answer is drawn; without a temperature the likeliest token is taken, as the gate judged it."""
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**63
    return Sampling(
        max_tokens=max_tokens,
        stop=tuple(word for word in stop if word),
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=seed,
        grammar=grammar,
        alternatives=alternatives,
    )


def _refuse_common(request: Drawing) -> None:
    """Refuse what would otherwise be dropped silently."""
    if request.n not in (None, 1):
        raise unsupported("n", "One answer is drawn per request.")
    for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(request, name):
            raise unsupported(name, f"{name} is not applied by this server.")


def _turn(message: ChatMessage, number: int) -> Turn:
    """One message as a turn of the conversation."""
    content = _content(message, number)
    if message.role == "tool":
        return ToolTurn("tool", content, {"tool_call_id": message.tool_call_id or "", "name": message.name or ""})
    if message.role == "assistant" and message.tool_calls:
        return ToolTurn("assistant", content, {"tool_calls": [_call(call, number) for call in message.tool_calls]})
    role: Role = "system" if message.role == "developer" else message.role
    return Message(role, content)


def _content(message: ChatMessage, number: int) -> str:
    """The text of a message."""
    where = f"messages.{number}.content"
    if message.content is None:
        if message.role != "assistant":
            raise ApiError(400, "The message has no content.", code="invalid_value", param=where)
        return ""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if part.type != "text" or part.text is None:
            raise unsupported(where, "This model reads text only.")
    return "".join(part.text or "" for part in message.content)


def _call(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A tool call of an earlier turn as templates read it: arguments as an object."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(400, "A tool call names its function.", code="invalid_value", param=f"messages.{number}")
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            arguments = {"text": arguments}
    return {"id": str(call.get("id", "")), "type": "function",
            "function": {"name": function["name"], "arguments": arguments}}  # fmt: skip


def _tools(request: ChatRequest, takes_tools: bool) -> tuple[dict[str, Any], ...]:
    """The tools that the model is shown."""
    if not request.tools or request.tool_choice == "none":
        if request.tool_choice not in (None, "none", "auto"):
            raise ApiError(400, "tool_choice needs tools.", code="invalid_value", param="tool_choice")
        return ()
    if not takes_tools:
        raise unsupported("tools", "This model's chat template has no tools.")
    if request.response_format is not None and request.response_format.type != "text":
        raise unsupported("response_format", "Tools and a response format do not go together.")
    return tuple(tool.model_dump(exclude_none=True) for tool in request.tools)


def _grammar(request: ChatRequest, tools: Sequence[object]) -> str:
    """The grammar that the answer must follow; empty for none."""
    if tools and request.tools:
        return _call_grammar(request.tools, request.tool_choice)
    form = request.response_format
    if form is None or form.type == "text":
        return ""
    if form.type == "json_object":
        return JSON_GRAMMAR
    if form.json_schema is None:
        raise ApiError(400, "The schema is missing.", code="invalid_value", param="response_format.json_schema")
    return _schema(form.json_schema.schema_, "response_format.json_schema.schema")


def _call_grammar(tools: Sequence[Tool], choice: object) -> str:
    """The grammar of a call that must be made; empty when the model may choose."""
    if choice in (None, "auto"):
        return ""
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise ApiError(400, "tool_choice names no tool given.", code="invalid_value", param="tool_choice")
    schemas = {tool.function.name: tool.function.parameters or {"type": "object"} for tool in tools}
    for schema in schemas.values():
        _schema(schema, "tools")
    return call_grammar(schemas)


def _schema(schema: Mapping[str, Any], param: str) -> str:
    """The grammar of a JSON schema that is not too big."""
    text = json.dumps(schema)
    if len(text) > SIZE or _deep(schema, DEPTH):
        raise ApiError(400, "The JSON schema is too large.", code="bad_schema", param=param)
    try:
        return schema_grammar(text)
    except CorrigibleError as error:
        raise ApiError(400, f"{error.message} {error.hint}", code=error.code, param=param) from None


def _deep(value: object, left: int) -> bool:
    """Whether a value is nested deeper than `left` levels."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_deep(one, left - 1) for one in inner)
