"""From an ask to an answer over HTTP: begun, streamed or whole, recorded, broken off when the client hangs up."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from feedback.answers import Answer
from feedback.engine import Stream
from feedback.gateway import objects
from feedback.gateway.ask import Ask
from feedback.gateway.desk import Growth
from feedback.gateway.errors import ApiError
from feedback.gateway.objects import Chunks, Head
from feedback.gateway.state import Gateway
from feedback.gateway.toolcalls import parse_calls
from feedback.stream import Token
from store.records import Completion, Interaction

FOREVER = 3600.0


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that has begun on the device."""

    head: Head
    growth: Growth


async def open_answer(
    gateway: Gateway, ask: Ask, model: str, begin: Callable[[], Stream], *, kind: str,
    fallback: str | None = None, record: bool = True,
) -> Opened:  # fmt: skip
    """Wait for a turn and begin an answer on the device.

    Raises:
        ApiError: the queue is full, or the conversation cannot be answered.
    """
    name = objects.new_id(kind)
    logged = record and ask.messages is not None and gateway.journal.state.on
    if logged:
        gateway.journal.announce(name)

    def finished(answer: Answer) -> None:
        if logged:
            write(gateway, ask, answer.text, Served(name, model, answer.stack, answer.mean_logprob, fallback=fallback))

    try:
        growth = await gateway.desk.admit(begin, finished)
    except BaseException:
        gateway.journal.drop(name)
        raise
    return Opened(Head(name, model, growth.stack, "device", fallback, logged), growth)


@dataclass(frozen=True, slots=True)
class Served:
    """How an answer came about, for the record."""

    name: str
    model: str
    stack: tuple[str, ...] = ()
    confidence: float | None = None
    source: str = ""
    fallback: str | None = None


def write(gateway: Gateway, ask: Ask, text: str, served: Served) -> None:
    """Hand an answer to the journal."""
    messages = ask.messages
    if messages is None:
        return
    now = time.time()
    base = served.source or gateway.engine.model.digest
    interaction = Interaction(messages=messages, answer=text, model=base, stack=served.stack, time=now)
    gateway.journal.write(
        interaction,
        Completion(
            interaction=interaction.id,
            name=served.name,
            model=served.model,
            confidence=served.confidence,
            source=served.source,
            fallback=served.fallback or "",
            time=now,
        ),
    )


async def whole(request: Request, growth: Growth) -> tuple[Answer, list[Token]]:
    """Wait for an answer that is not streamed; a client that hangs up ends it.

    Raises:
        ApiError: the answer failed, or nobody waits for it any more (499).
    """
    collecting = asyncio.ensure_future(_collect(growth))
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ApiError(499, "The client is gone.", code="client_gone")
        return collecting.result()
    finally:
        for task in (collecting, leaving):
            task.cancel()
        growth.cancel()


def answer_chat(ask: Ask, head: Head, answer: Answer, tokens: list[Token]) -> Response:
    """A whole chat answer."""
    content, calls = _calls(ask, answer.text)
    logprobs = objects.chat_logprobs(tokens) if ask.logprobs else None
    shown = content or (None if calls else "")
    body = objects.chat_object(head, answer, content=shown, calls=calls, logprobs=logprobs)
    return JSONResponse(body, headers=head.headers)


def stream(gateway: Gateway, ask: Ask, opened: Opened, *, chat: bool) -> Response:
    """An answer as server-sent events; a client that hangs up ends it."""
    chunks = Chunks(opened.head, chat=chat, counted=ask.usage, logprobs=ask.logprobs)
    body = _events(gateway, ask, opened, chunks)
    return events(body, opened.head)


def events(body: AsyncIterator[bytes], head: Head) -> Response:
    """A response of server-sent events."""
    return StreamingResponse(body, media_type="text/event-stream", headers={**head.headers, "x-accel-buffering": "no"})


async def _events(gateway: Gateway, ask: Ask, opened: Opened, chunks: Chunks) -> AsyncIterator[bytes]:
    """The events of one stream."""
    growth = opened.growth
    try:
        yield chunks.first() or objects.PING
        async for batch in growth.batches(gateway.settings.keep_alive):
            if not batch:
                yield objects.PING
            elif not ask.tools and (written := chunks.text(batch)):
                yield written
        answer = growth.answer
        assert answer is not None
        reason = objects.REASONS[answer.finish]
        if ask.tools:
            content, calls = _calls(ask, answer.text)
            yield chunks.plain(content) + chunks.calls(calls)
            reason = "tool_calls" if calls else reason
        yield chunks.last(reason, answer) + objects.DONE
    except ApiError as error:
        yield failed(error)
    finally:
        growth.cancel()


def failed(error: ApiError) -> bytes:
    """An error in the middle of a stream."""
    return b"data: " + JSONResponse(error.body).body + b"\n\n"


def _calls(ask: Ask, text: str) -> tuple[str, list[dict[str, Any]]]:
    """The text and the tool calls in it, where there are tools."""
    if not ask.tools:
        return text, []
    return parse_calls(text, {tool["function"]["name"] for tool in ask.tools})


async def _collect(growth: Growth) -> tuple[Answer, list[Token]]:
    """All tokens and the answer."""
    tokens: list[Token] = []
    async for batch in growth.batches(FOREVER):
        tokens += batch
    assert growth.answer is not None
    return growth.answer, tokens


async def _gone(request: Request) -> None:
    """Return when the client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
