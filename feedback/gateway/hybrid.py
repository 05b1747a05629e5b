"""Device and server together: who answers a conversation, under the upstream's policy, always ending on the device."""

from fastapi import Request
from starlette.responses import Response

from feedback.answers import Answer
from feedback.engine import Stream
from feedback.gateway import answering, objects
from feedback.gateway.answering import Opened, Served
from feedback.gateway.ask import Ask
from feedback.gateway.catalogue import Choice
from feedback.gateway.errors import ApiError, unsupported
from feedback.gateway.objects import Chunks, Head
from feedback.gateway.state import Gateway
from feedback.stream import Token
from feedback.upstream.client import Given, Upstream
from feedback.upstream.wire import Failed


async def chat(request: Request, gateway: Gateway, ask: Ask, choice: Choice) -> Response:
    """Answer a conversation.

    The upstream is asked when the model id says so, when the prompt does not fit, or when the device's own answer is
    unsure, each only where the policy allows it. Whatever fails there, the device answers, and the answer says why.
    """
    upstream = gateway.upstream
    if choice.upstream:
        return await _on_request(request, gateway, ask, choice)
    whole = upstream is not None and "unsure" in upstream.policy.when and _can_leave(ask) and choice.adapters is None
    try:
        opened = await _open(gateway, ask, choice, record=not whole)
    except ApiError as error:
        if upstream is None or error.code != "context_length_exceeded" or "too_long" not in upstream.policy.when:
            raise
        return await _too_long(gateway, ask, choice, error)
    if upstream is not None and whole:
        return await _unless_unsure(request, gateway, ask, opened)
    return await _device(request, gateway, ask, opened)


async def _on_request(request: Request, gateway: Gateway, ask: Ask, choice: Choice) -> Response:
    """The upstream first, the device if it fails."""
    upstream = gateway.upstream
    assert upstream is not None  # else the id is not on offer
    if not _can_leave(ask):
        raise unsupported("model", "The upstream is asked for plain text only: no tools, formats or log-probabilities.")
    if "request" not in upstream.policy.when:
        raise ApiError(400, "The policy does not allow to ask for the upstream.", code="not_allowed", param="model")
    try:
        return _given(gateway, ask, choice.id, await _asked(upstream, ask), None)
    except Failed as failed:
        opened = await _open(gateway, ask, Choice(choice.id), fallback=failed.reason)
        return await _device(request, gateway, ask, opened)


async def _too_long(gateway: Gateway, ask: Ask, choice: Choice, error: ApiError) -> Response:
    """The upstream for what the device cannot hold; the device's refusal if that fails."""
    upstream = gateway.upstream
    if upstream is None or not _can_leave(ask):
        raise error
    try:
        return _given(gateway, ask, choice.id, await _asked(upstream, ask), None)
    except Failed as failed:
        message = f"{error.message} The upstream did not answer either ({failed.reason})."
        raise ApiError(400, message, code=error.code, param="messages") from None


async def _unless_unsure(request: Request, gateway: Gateway, ask: Ask, opened: Opened) -> Response:
    """The device's answer, unless it is unsure and the upstream answers."""
    upstream = gateway.upstream
    assert upstream is not None
    answer, tokens = await answering.whole(request, opened.growth)
    fallback = None
    if upstream.policy.unsure(answer.mean_logprob):
        try:
            return _given(gateway, ask, opened.head.model, await _asked(upstream, ask), answer.mean_logprob)
        except Failed as failed:
            fallback = failed.reason
    head = Head(opened.head.id, opened.head.model, answer.stack, "device", fallback, gateway.journal.state.on)
    served = Served(head.id, head.model, answer.stack, answer.mean_logprob, fallback=fallback)
    return _finished(gateway, ask, head, answer, tokens, served)


async def _open(
    gateway: Gateway, ask: Ask, choice: Choice, *, fallback: str | None = None, record: bool = True
) -> Opened:
    """Begin an answer on the device."""

    def begin() -> Stream:
        return gateway.engine.stream(ask.turns, ask.sampling, adapters=choice.adapters, tools=ask.tools)

    return await answering.open_answer(
        gateway, ask, choice.id, begin, kind="chatcmpl", fallback=fallback, record=record
    )


async def _device(request: Request, gateway: Gateway, ask: Ask, opened: Opened) -> Response:
    """The device's answer as it grows, or whole."""
    if ask.stream:
        return answering.stream(gateway, ask, opened, chat=True)
    answer, tokens = await answering.whole(request, opened.growth)
    return answering.answer_chat(ask, opened.head, answer, tokens)


async def _asked(upstream: Upstream, ask: Ask) -> Given:
    """What the upstream answers."""
    assert ask.messages is not None
    return await upstream.ask(ask.messages, ask.sampling)


def _can_leave(ask: Ask) -> bool:
    """Whether the conversation is one that an upstream can be asked: plain text in, plain text out."""
    return ask.messages is not None and not ask.sampling.grammar and not ask.logprobs


def _given(gateway: Gateway, ask: Ask, model: str, given: Given, confidence: float | None) -> Response:
    """The upstream's answer, recorded like any other: a correction of it teaches the device."""
    assert gateway.upstream is not None
    head = Head(objects.new_id("chatcmpl"), model, (), "upstream", None, gateway.journal.state.on)
    finish = "length" if given.finish == "length" else "stop"
    answer = Answer(given.text, given.tokens_in, given.tokens_out, 0.0, finish, ())  # type: ignore[arg-type]
    served = Served(head.id, model, (), confidence, gateway.upstream.policy.origin)
    return _finished(gateway, ask, head, answer, [Token(given.text, b"", 0.0)], served)


def _finished(
    gateway: Gateway, ask: Ask, head: Head, answer: Answer, tokens: list[Token], served: Served
) -> Response:
    """An answer that is there already, streamed in one piece where a stream was asked for."""
    if head.logged:
        gateway.journal.announce(head.id)
        answering.write(gateway, ask, answer.text, served)
    if not ask.stream:
        return answering.answer_chat(ask, head, answer, tokens)
    chunks = Chunks(head, chat=True, counted=ask.usage, logprobs=False)
    body = chunks.first() + chunks.plain(answer.text) + chunks.last(objects.REASONS[answer.finish], answer)
    return Response(body + objects.DONE, media_type="text/event-stream", headers=head.headers)
