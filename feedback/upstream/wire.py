"""One HTTP/1.1 exchange whose outgoing bytes are known, to the last one, before the first leaves.

Not a general client on purpose: no redirects, no proxies, no pool, no cookies, so nothing goes anywhere else, and what
is written to the ledger is what is written to the socket.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import h11

from feedback.upstream.line import Line, SecureLine

LARGEST = 4 << 20  # bytes of a reply


class Failed(Exception):
    """The exchange came to nothing; `reason` is one word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: bytes


def request_bytes(url: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """Return the exact bytes of a POST of JSON."""
    parts = urlsplit(url)
    fixed = [
        ("Host", parts.netloc),
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        ("Connection", "close"),
        ("Content-Length", str(len(body))),
    ]
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="POST", target=parts.path or "/", headers=[*fixed, *headers])
    return b"".join(connection.send(event) or b"" for event in (request, h11.Data(data=body), h11.EndOfMessage()))


async def exchange(
    url: str,
    data: bytes,
    *,
    timeout: float,
    authorities: Path | None,
    leaving: Callable[[bytes], Awaitable[None]],
    left: Callable[[int, bytes], Awaitable[None]],
) -> Reply:
    """Connect, tell `leaving` what is about to leave, send it, and read the reply.

    Args:
        data: from `request_bytes`.
        timeout: seconds for everything together.
        leaving: awaited after the connection stands and before the first byte of `data` is sent.
        left: awaited at the end of a connection under TLS, with the size and SHA-256 of all that went out on it,
            handshake and encryption included.

    Raises:
        Failed: ``unreachable``, ``tls``, ``timeout``, ``cut``, ``garbage`` or ``too_large``.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(url, data, authorities, leaving, left)
    except TimeoutError:
        raise Failed("timeout") from None
    except ssl.SSLError:
        raise Failed("tls") from None
    except OSError:
        raise Failed("unreachable") from None
    except h11.RemoteProtocolError:
        raise Failed("garbage") from None


async def _exchange(
    url: str,
    data: bytes,
    authorities: Path | None,
    leaving: Callable[[bytes], Awaitable[None]],
    left: Callable[[int, bytes], Awaitable[None]],
) -> Reply:
    """The exchange, without its bounds."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=authorities) if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if context else 80))
    line = SecureLine(reader, writer, context, parts.hostname) if context else Line(reader, writer)
    try:
        if isinstance(line, SecureLine):
            await line.shake()
        await leaving(data)
        await line.send(data)
        return await _read(line)
    finally:
        line.close()
        if isinstance(line, SecureLine):
            await left(line.sent, line.seal.digest())


async def _read(line: Line) -> Reply:
    """The reply."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    status, body, ended = 0, b"", False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            raise Failed("cut" if ended else "garbage") from None
        if event is h11.NEED_DATA:
            received = await line.receive()
            ended = not received
            connection.receive_data(received)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST:
                raise Failed("too_large")
        elif isinstance(event, h11.EndOfMessage):
            return Reply(status, body)
        elif isinstance(event, h11.ConnectionClosed):
            raise Failed("cut")
