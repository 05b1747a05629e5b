"""A connection whose outgoing bytes are counted: plain, or TLS with the records made in memory before they are sent."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
CHUNK = 65536


class Line:
    """A connection over `reader` and `writer`; `sent` and `seal` are of all that was handed to the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.sent, self.seal = 0, hashlib.sha256()

    async def send(self, data: bytes) -> None:
        """Count and send."""
        self.sent += len(data)
        self.seal.update(data)
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Return what came, empty at the end."""
        return await self._reader.read(CHUNK)

    def close(self) -> None:
        """Drop the connection; nothing more is sent."""
        self._writer.transport.abort()


class SecureLine(Line):
    """The same under TLS: handshake, records and alerts are counted too."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str | None
    ) -> None:
        super().__init__(reader, writer)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    async def shake(self) -> None:
        """Agree on keys and check the other's certificate.

        Raises:
            ssl.SSLError: it is not good, or the other does not speak TLS.
        """
        await self._until(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Encrypt, count and send."""
        await self._until(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        """Return what came, decrypted; empty at the end, however the other ended."""
        try:
            return await self._until(lambda: self._tls.read(CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _until(self, step: Callable[[], Result]) -> Result:
        """Repeat `step` with what arrives until it is through; whatever it wants sent is sent."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await super().receive():
                    self._in.write(data)
                else:
                    self._in.write_eof()
            finally:
                await self._flush()

    async def _flush(self) -> None:
        if data := self._out.read():
            await super().send(data)
