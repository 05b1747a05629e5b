"""The first thing every request meets: who may address this server, from where, how big and how slowly.

Own code because no framework's check covers it: loopback names with their port (DNS rebinding), the browser's word on
where a request comes from (cross-site), sizes, and clients that never finish. Nothing here looks at tokens.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from feedback.gateway.errors import ApiError
from feedback.gateway.settings import GatewaySettings

Scope = MutableMapping[str, Any]
Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
HEAD = 64 * 1024  # bytes of all header fields together
SAFE = ("GET", "HEAD", "OPTIONS")
ALLOWED = "authorization, content-type, x-csrf-token, x-stainless-*"


class Guard:
    """ASGI middleware around the whole application.

    Args:
        log: keeps the frames, never the words, of an error nobody expected.
    """

    def __init__(self, app: App, settings: GatewaySettings, log: Callable[[BaseException], object]) -> None:
        self._app, self._settings, self._log = app, settings, log
        self.port = settings.port  # the one listened on, once it is known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with limits on time and size."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        origin = headers.get("origin", "") if headers.get("origin", "") in self._settings.origins else ""
        answer = _Answer(send, origin)
        try:
            self._check(scope, headers)
            if origin and scope["method"] == "OPTIONS":
                await answer.preflight(headers.get("access-control-request-headers", ""))
                return
            body = _Body(receive, self._settings, headers, answer)
            await self._app(scope, body.receive, answer.send)
        except ApiError as refusal:
            answer.refusal = refusal
        except Exception as error:
            self._log(error)
        refused, answer.refusal = answer.refusal, None
        if refused is not None and not answer.started:
            refused.headers["Connection"] = "close"  # what else comes of this request is not read
            await refused.response()(scope, receive, answer.send)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Refuse a request that is addressed, sent or shaped wrongly."""
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > self._settings.max_headers or size > HEAD:
            raise ApiError(431, "There are too many header fields.", code="headers_too_large")
        names = [name for name, _ in scope["headers"]]
        if names.count(b"host") != 1 or headers["host"] not in self._addresses():
            raise ApiError(403, "This server does not answer under this name.", code="host_refused")
        if not self._welcome(headers):
            raise ApiError(403, "Requests from other sites are refused.", code="origin_refused")
        if scope["method"] not in SAFE and not _is_json(headers):
            raise ApiError(415, "Send JSON, with content-type application/json.", code="unsupported_media_type")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._settings.max_body:
            raise _too_large(self._settings)

    def _addresses(self) -> set[str]:
        """The values of Host that mean us: loopback names and those of the settings, with our port."""
        names = ["127.0.0.1", "localhost", "[::1]", *self._settings.hosts]
        if not self._settings.loopback:
            names.append(self._settings.host)
        usual = 443 if self._settings.tls else 80
        bare = set(names) if self.port == usual else set()
        return {f"{name}:{self.port}" for name in names} | bare

    def _welcome(self, headers: Mapping[str, str]) -> bool:
        """Whether the browser says that this comes from our own page, a listed origin or no page at all."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin in self._settings.origins:
            return True
        if origin is not None and origin not in self._own_origins():
            return False
        return site in (None, "same-origin", "none")

    def _own_origins(self) -> set[str]:
        scheme = "https" if self._settings.tls else "http"
        return {f"{scheme}://{address}" for address in self._addresses()}


class _Body:
    """The request's body, as far as size and time allow."""

    def __init__(
        self, receive: Receive, settings: GatewaySettings, headers: Mapping[str, str], answer: "_Answer"
    ) -> None:
        self._receive, self._settings, self._answer = receive, settings, answer
        self._size, self._whole = 0, headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Any:  # noqa: ANN401 - an ASGI event
        """Pass the next event on."""
        if self._whole:  # what comes now is the end of the connection, which may take its time
            return await self._receive()
        try:
            event = await asyncio.wait_for(self._receive(), self._settings.patience)
        except TimeoutError:
            raise self._refused(ApiError(408, "The request did not come in time.", code="timeout")) from None
        if event["type"] == "http.request":
            self._size += len(event.get("body", b""))
            self._whole = not event.get("more_body", False)
            if self._size > self._settings.max_body:
                raise self._refused(_too_large(self._settings))
        return event

    def _refused(self, refusal: ApiError) -> ApiError:
        """The answer must be this, whatever the application makes of a body that it could not read."""
        self._answer.refusal = refusal
        return refusal


class _Answer:
    """The response, with our headers."""

    def __init__(self, send: Send, origin: str) -> None:
        self._send, self._origin = send, origin
        self.started = False
        self.refusal: ApiError | None = None  # what the body came to, when that was nothing

    async def send(self, event: Any) -> None:  # noqa: ANN401 - an ASGI event
        """Pass an event on."""
        if self.refusal is not None and not self.started:
            return
        if event["type"] == "http.response.start":
            self.started = True
            event = {**event, "headers": self._with_ours(event.get("headers", []))}
        await self._send(event)

    async def preflight(self, wanted: str) -> None:
        """Answer a browser that asks whether a listed origin may call."""
        asked = wanted.encode("latin-1", "replace")
        extra = [
            (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
            (b"access-control-allow-headers", asked or ALLOWED.encode()),
            (b"access-control-max-age", b"600"),
        ]
        await self.send({"type": "http.response.start", "status": 204, "headers": extra})
        await self.send({"type": "http.response.body", "body": b""})

    def _with_ours(self, headers: Any) -> list[tuple[bytes, bytes]]:  # noqa: ANN401
        """The response's headers and ours, where it has not set them itself."""
        present = {name.lower() for name, _ in headers}
        ours = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present]
        if self._origin:
            ours += [(b"access-control-allow-origin", self._origin.encode()), (b"vary", b"Origin")]
        return [*headers, *ours]


def _headers(scope: Scope) -> dict[str, str]:
    """Header fields by name; of repeated ones the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _is_json(headers: Mapping[str, str]) -> bool:
    """Whether the body is declared as JSON; a request without a body need not say."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return True
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _too_large(settings: GatewaySettings) -> ApiError:
    return ApiError(413, f"The request is larger than {settings.max_body} bytes.", code="request_too_large")
