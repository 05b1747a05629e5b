"""The only part of a fleet server that devices reach: ten of Flower's verbs, the request to join, and static releases.

Everything else that Flower serves on its port (starting runs, registering nodes, tasks) answers 404 here. Each device's
key has its own bucket of requests. `deploy/nginx.conf` does the same for a large fleet; this is enough for a desk.
"""

import asyncio
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from federation import enrolment
from federation.charter import Charter, read_terms
from federation.control import control
from federation.pki import load_signing_key
from federation.plan import ServerFolder
from federation.repository import root_of
from federation.state import Node
from store.errors import CorrigibleError, NotEligible, UsageError

VERBS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "pull-object",
    "push-object", "confirm-message-received", "get-run", "get-fab",
)  # fmt: skip
BODY_LIMIT = 8 << 20  # bytes; Flower cuts arrays into chunks of 5 MB
BODY_SECONDS = 60.0  # a request that takes longer to arrive is dropped
ANSWER_SECONDS = 120.0
JOINS_A_MINUTE = 120
KEYS_REMEMBERED = 100_000
STATUS = {NotEligible: 403, UsageError: 400}


@dataclass(slots=True)
class Buckets:
    """One token bucket a key: `rate` requests a second, `burst` at once; the keys unused longest are forgotten."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _left: "OrderedDict[str, tuple[float, float]]" = field(default_factory=OrderedDict)

    def allow(self, key: str) -> bool:
        """Take one token of `key`; False when it has none."""
        now = self.clock()
        tokens, then = self._left.pop(key, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        allowed = tokens >= 1.0
        self._left[key] = (tokens - allowed, now)
        if len(self._left) > KEYS_REMEMBERED:
            self._left.popitem(last=False)
        return allowed


class Front:
    """The handlers, and counts of what they did.

    Args:
        folder: the server's folder.
        charter: the operator's settings.
    """

    def __init__(self, folder: ServerFolder, charter: Charter) -> None:
        self._folder = folder
        self._address = f"127.0.0.1:{charter.superlink}"
        self._buckets = Buckets(charter.rate, charter.burst)
        self._joins = Buckets(JOINS_A_MINUTE / 60, JOINS_A_MINUTE)
        self._state = folder.state()
        self._key = load_signing_key(folder.release_key)
        context = ssl.create_default_context(cafile=str(folder.authority))
        self._flower = httpx.AsyncClient(base_url=f"https://{self._address}", verify=context, timeout=ANSWER_SECONDS)
        self.answers: Counter[tuple[str, int]] = Counter()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            *(Route(f"/v1/fleet/{verb}", self._forward, methods=["POST"]) for verb in VERBS),
            Route("/fleet/anchors", self._anchors),
            Route("/fleet/terms", self._terms),
            Route("/fleet/join", self._join, methods=["POST"]),
            Route("/healthz", self._healthz),
            Mount("/releases", StaticFiles(directory=self._folder.repository)),
        ]
        return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})

    async def _forward(self, request: Request) -> Response:
        """Hand one verb to Flower and its answer back."""
        verb = request.url.path.rpartition("/")[2]
        if not self._buckets.allow(request.headers.get("flwr-public-key", "")[:512]):
            return self._answer(verb, PlainTextResponse("too many requests", 429, {"Retry-After": "1"}))
        try:
            body = await _body(request, BODY_LIMIT)
        except (TimeoutError, ValueError, ClientDisconnect):
            return self._answer(verb, PlainTextResponse("too large or too slow", 413))
        names = ("content-type", "accept")
        kept = {k: v for k, v in request.headers.items() if k in names or k.startswith("flwr-")}
        try:
            found = await self._flower.post(request.url.path, content=body, headers=kept)
        except httpx.HTTPError:
            return self._answer(verb, PlainTextResponse("not now", 503, {"Retry-After": "5"}))
        media = found.headers.get("content-type")
        return self._answer(verb, Response(found.content, found.status_code, media_type=media))

    async def _join(self, request: Request) -> Response:
        """Enroll a device with a good invitation."""
        if not self._joins.allow(request.client.host if request.client else ""):
            return self._answer("join", JSONResponse({"error": "slower"}, 429, {"Retry-After": "10"}))
        try:
            body = await _body(request, enrolment.REQUEST_LIMIT)
            node = await run_in_threadpool(self._admit, body)
        except (TimeoutError, ValueError, ClientDisconnect):
            return self._answer("join", JSONResponse({"error": "request"}, 413))
        except CorrigibleError as error:
            code = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
            return self._answer("join", JSONResponse({"error": error.code}, code))
        return self._answer("join", JSONResponse({"name": node.name}))

    def _admit(self, body: bytes) -> Node:
        """The blocking half of joining."""
        with control(self._address, self._folder.authority) as operator:
            return enrolment.admit(self._state, operator, read_terms(self._folder, self._key), body)

    async def _anchors(self, _request: Request) -> Response:
        """What a link pins: believed by nobody who has no link."""
        value = {"authority": self._folder.authority.read_text(), "root": root_of(self._folder).decode()}
        return self._answer("anchors", JSONResponse(value))

    async def _terms(self, _request: Request) -> Response:
        """The fleet's signed terms."""
        data = await run_in_threadpool(read_terms, self._folder, self._key)
        return self._answer("terms", Response(data, media_type="application/json"))

    async def _healthz(self, _request: Request) -> Response:
        """This process answers."""
        return PlainTextResponse("ok")

    def _answer(self, what: str, response: Response) -> Response:
        """Count an answer and harden its headers."""
        self.answers[what, response.status_code] += 1
        response.headers["x-content-type-options"] = "nosniff"
        return response


async def _body(request: Request, limit: int) -> bytes:
    """The whole body, unless it is too long or too slow.

    Raises:
        ValueError: longer than `limit`. TimeoutError: it takes too long.
    """
    data = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise ValueError
    return bytes(data)


async def _not_found(_request: Request, _error: Exception) -> Response:
    """One answer for all that is not there."""
    return PlainTextResponse("not found", 404)
