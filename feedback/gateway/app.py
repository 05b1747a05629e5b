"""The application: routes, errors and static files put together."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from feedback.gateway import auth, corrections, openai_api, panel
from feedback.gateway.documents import errors
from feedback.gateway.errors import ApiError, of
from feedback.gateway.guard import Guard
from feedback.gateway.state import Gateway
from store.errors import CorrigibleError

PAGE = files("feedback") / "page"
KINDS = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webmanifest": "application/manifest+json",
}
CODES = {404: "not_found", 405: "method_not_allowed"}


def build_app(gateway: Gateway | None) -> FastAPI:
    """Return the application; without a gateway only its OpenAPI document is of use."""
    app = FastAPI(
        title="Corrigible",
        version=version("corrigible"),
        description="A local model that learns from corrections: OpenAI-compatible, with a feedback API.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=_operation,
    )
    app.state.gateway = gateway
    app.openapi = partial(_document, app)  # type: ignore[method-assign]
    for router in (openai_api.router, corrections.router, auth.router, panel.router):
        app.include_router(router)
    _plain_routes(app)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(CorrigibleError, _our_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with our error object in place of FastAPI's own for invalid requests."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for methods in made["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema


def guarded(gateway: Gateway) -> Guard:
    """Return the whole application behind its guard."""
    return Guard(build_app(gateway), gateway.settings, gateway.above.log)


def _operation(route: APIRoute) -> str:
    """The operation's id: its function's name."""
    return f"{route.tags[0] if route.tags else 'server'}_{route.name}"


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Look at the store while serving; at the end break off answers and write what waits."""
    gateway: Gateway = app.state.gateway
    looking = asyncio.create_task(gateway.watcher.run())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.to_thread(gateway.desk.close)
        await asyncio.to_thread(gateway.journal.close)


def _plain_routes(app: FastAPI) -> None:
    """Health and the page."""

    @app.get("/healthz", tags=["server"], responses=errors(403, 431))
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["server"], responses=errors(403, 431))
    async def readyz() -> dict[str, str]:
        """The model is loaded."""
        return {"status": "ready"}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """The page."""
        return _static(request, "index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(request: Request, name: str) -> Response:
        """A part of the page."""
        return _static(request, name)


def _static(request: Request, name: str) -> Response:
    """A file of the page's folder; nothing outside it, nothing hidden."""
    known = {entry.name for entry in PAGE.iterdir()} if PAGE.is_dir() else set()
    if name not in known or name.startswith("."):
        raise ApiError(404, "There is no such file.", code="not_found")
    data = (PAGE / name).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = KINDS.get(name.rpartition(".")[2], "application/octet-stream")
    return Response(data, media_type=kind, headers=headers)


async def _api_error(_: Request, error: Exception) -> Response:
    """A refusal."""
    assert isinstance(error, ApiError)
    return error.response()


async def _our_error(_: Request, error: Exception) -> Response:
    """An error of the store or the engine."""
    assert isinstance(error, CorrigibleError)
    return of(error).response()


async def _invalid(_: Request, error: Exception) -> Response:
    """A request that does not have the shape; the message names places and rules, never what was sent."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first: Mapping[str, Any] = found[0] if found else {"loc": ("body",), "msg": "Invalid request"}
    where = ".".join(str(part) for part in first["loc"] if part != "body") or None
    message = f"{where or 'The body'}: {_rule(first)}."
    return ApiError(400, message, code="invalid_value", param=where).response()


def _rule(problem: Mapping[str, Any]) -> str:
    """The rule that was broken, without the value that broke it."""
    if problem.get("type") == "json_invalid":
        return "this is not valid JSON"
    return str(problem.get("msg", "invalid")).rstrip(".")


async def _http_error(request: Request, error: Exception) -> Response:
    """An unknown path or method."""
    assert isinstance(error, HTTPException)
    message = "There is no such path."
    if error.status_code == 404 and not request.url.path.startswith(("/v1", "/api")):
        message += " The API's base address ends in /v1."
    if error.status_code == 405:
        message = "This path does not know the method."
    if error.status_code == 400:
        message = "The body could not be read."
    code = CODES.get(error.status_code, "invalid_request")
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


async def _unexpected(_: Request, error: Exception) -> Response:
    """Anything else: its type only."""
    return JSONResponse(ApiError(500, f"Internal error ({type(error).__name__}).", code="internal").body, 500)
