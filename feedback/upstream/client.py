"""Asks the upstream: consent, redaction, ledger, exchange, and what came back with the secrets put back in."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback.stream import Sampling
from feedback.upstream.breaker import Breaker
from feedback.upstream.policy import UpstreamPolicy
from feedback.upstream.redact import Redaction
from feedback.upstream.wire import Failed, exchange, request_bytes
from store.base import StoreBase
from store.errors import CorrigibleError
from store.records import HASH_TAG, TRANSPORT, Egress, Message, digest

REASONS = ("stop", "length")
KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Given:
    """An answer of the upstream."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be sent: the body, word for word, and what was taken out of it."""

    url: str
    body: str
    size: int  # bytes, head included
    redacted: dict[str, int]


class Upstream:
    """One upstream under its policy, left alone for a while when its `breaker` has opened."""

    def __init__(self, policy: UpstreamPolicy, store: StoreBase, breaker: Breaker | None = None) -> None:
        self.policy = policy
        self._store, self.breaker = store, breaker or Breaker()
        self._url = policy.url.rstrip("/") + "/chat/completions"

    @property
    def state(self) -> dict[str, Any]:
        """Who it is, when it is asked, whether it may be and whether it is being left alone."""
        return {
            "destination": self.policy.origin,
            "model": self.policy.model,
            "when": list(self.policy.when),
            "threshold": self.policy.threshold,
            "consent": self._store.consent("upstream", self.policy.origin) is not None,
            "resting": self.breaker.open,
        }

    def preview(self, messages: Sequence[Message], sampling: Sampling) -> Preview:
        """Show what would be sent; nothing is."""
        redaction = Redaction()
        body = self._body(messages, sampling, redaction)
        return Preview(self._url, body.decode(), len(request_bytes(self._url, (), body)), dict(redaction.found))

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Given:
        """Ask; every outgoing byte is in the ledger before it leaves.

        Raises:
            Failed: ``no_consent``, ``resting`` (the breaker is open), ``ledger``, ``key_file``, ``status_503`` and the
                like, or what `exchange` raises. Without consent nothing at all leaves, not even a connection.
        """
        try:
            consent = await asyncio.to_thread(self._store.consent, "upstream", self.policy.origin)
        except CorrigibleError:
            raise Failed("ledger") from None
        if consent is None:
            raise Failed("no_consent")
        if not self.breaker.allow():
            raise Failed("resting")
        redaction = Redaction()
        data = request_bytes(self._url, self._key(), self._body(messages, sampling, redaction))
        try:
            given = await self._exchange(data, consent.id)
        except Failed:
            self.breaker.failed()
            raise
        self.breaker.succeeded()
        return Given(redaction.restore(given.text), given.finish, given.tokens_in, given.tokens_out)

    async def _exchange(self, data: bytes, consent: str) -> Given:
        """One exchange, recorded."""

        async def note(purpose: str, size: int, payload: str) -> None:
            entry = Egress(purpose=purpose, destination=self.policy.origin, consent=consent, size=size,
                           payload=payload, time=time.time())  # fmt: skip
            try:
                await asyncio.to_thread(self._store.add, entry)
            except CorrigibleError:
                raise Failed("ledger") from None

        reply = await exchange(
            self._url, data, timeout=self.policy.timeout, authorities=self.policy.authorities,
            leaving=lambda sent: note("upstream", len(sent), digest(sent)),
            left=lambda size, seal: note(TRANSPORT, size, HASH_TAG + seal.hex()),
        )  # fmt: skip
        if reply.status != 200:
            raise Failed(f"status_{reply.status}")
        return _parsed(reply.body)

    def _body(self, messages: Sequence[Message], sampling: Sampling, redaction: Redaction) -> bytes:
        """The request's JSON, redacted."""
        turns = [{"role": one.role, "content": redaction.redact(one.content)} for one in messages]
        body: dict[str, Any] = {"model": self.policy.model, "messages": turns, "max_tokens": sampling.max_tokens,
                                "temperature": sampling.temperature, "stream": False}  # fmt: skip
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = [redaction.redact(word) for word in sampling.stop]
        return json.dumps(body, ensure_ascii=False).encode()

    def _key(self) -> list[tuple[str, str]]:
        """The header with the API key."""
        if self.policy.key_file is None:
            return []
        try:
            key = self.policy.key_file.read_text(encoding="ascii")[:KEY_BYTES].strip()
        except (OSError, UnicodeDecodeError):
            raise Failed("key_file") from None
        if not key or not key.isprintable():
            raise Failed("key_file")
        return [("Authorization", f"Bearer {key}")]


def _parsed(body: bytes) -> Given:
    """The answer in a reply."""
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        text, finish, usage = choice["message"]["content"], choice.get("finish_reason"), value.get("usage") or {}
        counts = [int(usage.get(name, 0)) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise Failed("garbage") from None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise Failed("garbage")
    return Given(text.encode(errors="replace").decode(), finish if finish in REASONS else "stop", *counts)
