"""The OpenAI-compatible routes: models, chat completions, completions, embeddings."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from feedback.engine import Stream
from feedback.gateway import answering, hybrid, objects
from feedback.gateway.access import needs
from feedback.gateway.ask import chat_ask, text_ask
from feedback.gateway.catalogue import Choice
from feedback.gateway.documents import STREAMED, errors
from feedback.gateway.errors import ApiError
from feedback.gateway.schema import (
    Chat,
    ChatRequest,
    CompletionRequest,
    Continuation,
    EmbeddingRequest,
    Model,
    ModelList,
)
from feedback.gateway.state import Gateway
from feedback.gateway.tokens import Identity

router = APIRouter(prefix="/v1", tags=["openai"])
Chatter = Annotated[Identity, Depends(needs("chat"))]


@router.get("/models", response_model=ModelList, responses=errors(401, 403, 431))
async def models(request: Request, _: Chatter) -> Any:  # noqa: ANN401 - checked against the response model
    """List the models on offer."""
    return {"object": "list", "data": _gateway(request).catalogue.entries()}


@router.get("/models/{model}", response_model=Model, responses=errors(401, 403, 404, 431))
async def model(request: Request, model: str, _: Chatter) -> Any:  # noqa: ANN401
    """Show one model."""
    return _gateway(request).catalogue.entry(model)


@router.post("/chat/completions", response_model=Chat, responses=STREAMED)
async def chat(request: Request, body: ChatRequest, _: Chatter) -> Response:
    """Answer a conversation; with `stream` as server-sent events."""
    gateway = _gateway(request)
    choice = await _choice(gateway, body.model)
    ask = chat_ask(body, takes_tools=gateway.engine.takes_tools, default_tokens=gateway.default_tokens)
    return await hybrid.chat(request, gateway, ask, choice)


@router.post("/completions", response_model=Continuation, responses=STREAMED)
async def completions(request: Request, body: CompletionRequest, _: Chatter) -> Response:
    """Continue a text, without the chat template; such answers are not logged."""
    gateway = _gateway(request)
    choice = await _choice(gateway, body.model)
    text, ask = text_ask(body, gateway.default_tokens)
    begin: Callable[[], Stream] = lambda: gateway.engine.complete(text, ask.sampling, adapters=choice.adapters)  # noqa: E731
    opened = await answering.open_answer(gateway, ask, choice.id, begin, kind="cmpl")
    if ask.stream:
        return answering.stream(gateway, ask, opened, chat=False)
    answer, tokens = await answering.whole(request, opened.growth)
    logprobs = objects.text_logprobs(tokens) if ask.logprobs else None
    return JSONResponse(objects.text_object(opened.head, answer, logprobs), headers=opened.head.headers)


@router.post("/embeddings", responses=errors(400, 401, 403, 404, 413, 415, 431))
async def embeddings(request: Request, body: EmbeddingRequest, _: Chatter) -> Response:
    """Embed texts, where the served model can: chat models cannot, and say so."""
    await _choice(_gateway(request), body.model)
    raise ApiError(400, "The served model makes no embeddings.", code="unsupported_model", param="model")


async def _choice(gateway: Gateway, id: str | None) -> Choice:
    """What a model id stands for; only ids with a part after @ look at the store."""
    gateway.above.asked()
    if id and "@" in id:
        return await asyncio.to_thread(gateway.catalogue.choose, id)
    return gateway.catalogue.choose(id)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
