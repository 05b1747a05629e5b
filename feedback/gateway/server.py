"""Runs the application under uvicorn: one process, loopback, connections that never finish their request dropped."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from feedback.gateway.app import guarded
from feedback.gateway.guard import HEAD
from feedback.gateway.settings import GatewaySettings
from feedback.gateway.state import Gateway
from store.errors import NetworkError

BACKLOG = 128
CONNECTIONS = 256


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose next request's head does not come in time."""

    patience = 30.0
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(self.patience, self._late)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a whole head has come, start it when a new one begins."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._clock.cancel()
        elif (self.cycle is None or self.cycle.response_complete) and self._clock.cancelled():
            self._clock = self.loop.call_later(self.patience, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._clock.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock on a client that does not read."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _late(self) -> None:
        """Drop a client that sends nothing useful."""
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.abort()


def bind(settings: GatewaySettings) -> socket.socket:
    """Return the listening socket.

    Raises:
        NetworkError: the port is taken or the address is not this machine's (code ``port_taken``).
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle's delay on
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        message = f"Port {settings.port} on {settings.host} cannot be listened on."
        hint = "Stop what uses it, or set another port under [gateway] (0 takes any free one)."
        raise NetworkError(message, hint=hint, code="port_taken") from None
    return listening


class Server(uvicorn.Server):
    """Serves until SIGTERM, SIGINT or `should_exit`; answers in flight have a few seconds to finish.

    Args:
        ready: called once requests are accepted.
    """

    def __init__(self, gateway: Gateway, listening: socket.socket, ready: Callable[[], None]) -> None:
        settings = gateway.settings
        app = guarded(gateway)
        app.port = listening.getsockname()[1]
        logging.getLogger("uvicorn.error").disabled = True  # its tracebacks may quote the owner
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Protocol", (PatientProtocol,), {"patience": settings.patience}),
                loop="auto",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=5,
                limit_concurrency=CONNECTIONS,
                h11_max_incomplete_event_size=HEAD,
                **_tls(settings),
            )
        )
        self._listening, self._ready = listening, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in this thread."""
        super().run(sockets=sockets or [self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and leave the process's own end to the caller."""
        await super().shutdown(sockets=sockets)
        self._captured_signals.clear()


def _tls(settings: GatewaySettings) -> dict[str, Any]:
    """uvicorn's settings for HTTPS."""
    if not settings.tls:
        return {}
    return {"ssl_certfile": str(settings.certificate), "ssl_keyfile": str(settings.key)}
