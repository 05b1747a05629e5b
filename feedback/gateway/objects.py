"""Answers as OpenAI's clients read them: whole objects and the chunks of a stream."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from feedback.answers import Answer
from feedback.stream import Token
from store.records import digest

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
REASONS = {"stop": "stop", "length": "length", "cancelled": "stop"}


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one answer share.

    Attributes:
        id: the completion id, the handle for corrections.
        model: the model id that answered.
        adapters: digests of those that answer, in order.
    """

    id: str
    model: str
    adapters: tuple[str, ...]
    source: Literal["device", "upstream"] = "device"
    fallback: str | None = None
    logged: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def fingerprint(self) -> str:
        """A short name of the stack that answers."""
        return "fp_" + digest("".join(self.adapters).encode()).removeprefix("sha256:")[:12]

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that say who answers."""
        return {
            "x-corrigible-adapter": ",".join(self.adapters) or "none",
            "x-corrigible-source": self.source,
            "x-corrigible-logged": "yes" if self.logged else "no",
            **({"x-corrigible-fallback": self.fallback} if self.fallback else {}),
        }

    def provenance(self, confidence: float | None) -> dict[str, Any]:
        """The same inside the answer."""
        return {
            "adapters": list(self.adapters),
            "source": self.source,
            "fallback": self.fallback,
            "logged": self.logged,
            "confidence": confidence,
        }


def new_id(kind: str) -> str:
    """Return a fresh completion id."""
    return f"{kind}-{secrets.token_hex(16)}"


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of the request and its answer."""
    total = answer.tokens_in + answer.tokens_out
    return {"prompt_tokens": answer.tokens_in, "completion_tokens": answer.tokens_out, "total_tokens": total}


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """Probabilities of an answer's tokens, in the form of the chat API."""
    content = [
        {**_one(token.piece, token.logprob), "top_logprobs": [_one(*other) for other in token.alternatives]}
        for token in tokens
        if token.piece
    ]
    return {"content": content, "refusal": None}


def text_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """The same in the form of the completions API."""
    real = [token for token in tokens if token.piece]
    pieces = [token.piece.decode(errors="replace") for token in real]
    offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    tops = [{piece.decode(errors="replace"): logprob for piece, logprob in token.alternatives} for token in real]
    return {"tokens": pieces, "token_logprobs": [token.logprob for token in real], "top_logprobs": tops,
            "text_offset": offsets}  # fmt: skip


def chat_object(
    head: Head, answer: Answer, *, content: str | None, calls: Sequence[Any] = (), logprobs: Any = None  # noqa: ANN401
) -> dict[str, Any]:
    """A whole chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = list(calls)
    reason = "tool_calls" if calls else REASONS[answer.finish]
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return _whole(head, answer, "chat.completion", choice)


def text_object(head: Head, answer: Answer, logprobs: Any = None) -> dict[str, Any]:  # noqa: ANN401
    """A whole text completion."""
    choice = {"index": 0, "text": answer.text, "logprobs": logprobs, "finish_reason": REASONS[answer.finish]}
    return _whole(head, answer, "text_completion", choice)


def _whole(head: Head, answer: Answer, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    """An answer that is not streamed."""
    confidence = answer.mean_logprob if head.source == "device" else None
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "choices": [choice],
        "usage": usage(answer),
        "system_fingerprint": head.fingerprint,
        "corrigible": head.provenance(confidence),
    }


class Chunks:
    """Writes the chunks of one stream.

    Args:
        chat: in the form of the chat API, else of the completions API.
        counted: the stream ends with a chunk of usage, so the others say that they have none.
        logprobs: probabilities are wanted.
    """

    def __init__(self, head: Head, *, chat: bool, counted: bool, logprobs: bool) -> None:
        kind = "chat.completion.chunk" if chat else "text_completion"
        shared = {"id": head.id, "object": kind, "created": head.created, "model": head.model,
                  "system_fingerprint": head.fingerprint}  # fmt: skip
        if counted:
            shared["usage"] = None
        self._head, self._shared, self._chat, self._logprobs = head, shared, chat, logprobs
        self._opening = "data: " + json.dumps(shared)[:-1] + ', "choices": [{"index": 0, '

    def first(self) -> bytes:
        """The chunk that opens a chat answer."""
        return self._choice('"delta": {"role": "assistant", "content": ""}', "null", None) if self._chat else b""

    def text(self, tokens: Sequence[Token]) -> bytes:
        """One chunk per token that shows text, or per token when probabilities are wanted."""
        return b"".join(self._token(token) for token in tokens if token.text or (self._logprobs and token.piece))

    def plain(self, text: str) -> bytes:
        """One chunk of text that no token of ours stands behind."""
        return self._token(Token(text, b"", 0.0)) if text else b""

    def calls(self, calls: Sequence[dict[str, Any]]) -> bytes:
        """Tool calls: id and name in one chunk, the arguments in the next."""
        written = b""
        for index, call in enumerate(calls):
            name = {"name": call["function"]["name"], "arguments": ""}
            start = {"index": index, "id": call["id"], "type": "function", "function": name}
            rest = {"index": index, "function": {"arguments": call["function"]["arguments"]}}
            for part in (start, rest):
                written += self._choice(f'"delta": {json.dumps({"tool_calls": [part]})}', "null", None)
        return written

    def last(self, reason: str, answer: Answer | None) -> bytes:
        """The chunk that says why the answer ends, then the usage when it is wanted."""
        empty = '"delta": {}' if self._chat else '"text": ""'
        confidence = answer.mean_logprob if answer is not None and self._head.source == "device" else None
        ours = f', "corrigible": {json.dumps(self._head.provenance(confidence))}'
        written = self._choice(empty, "null", reason, ours)
        if answer is not None and "usage" in self._shared:
            end = {**self._shared, "choices": [], "usage": usage(answer)}
            written += b"data: " + json.dumps(end).encode() + b"\n\n"
        return written

    def _token(self, token: Token) -> bytes:
        """One chunk."""
        shown = json.dumps(token.text)
        body = f'"delta": {{"content": {shown}}}' if self._chat else f'"text": {shown}'
        logprobs = "null"
        if self._logprobs and token.piece:
            logprobs = json.dumps(chat_logprobs([token]) if self._chat else text_logprobs([token]))
        return self._choice(body, logprobs, None)

    def _choice(self, body: str, logprobs: str, reason: str | None, rest: str = "") -> bytes:
        """A chunk around its one choice."""
        end = f'"logprobs": {logprobs}, "finish_reason": {json.dumps(reason)}}}]{rest}}}\n\n'
        return f"{self._opening}{body}, {end}".encode()


def _one(piece: bytes, logprob: float) -> dict[str, Any]:
    """One token with its probability."""
    return {"token": piece.decode(errors="replace"), "logprob": logprob, "bytes": list(piece)}
