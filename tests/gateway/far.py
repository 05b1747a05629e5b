"""Another server on loopback that plays the upstream: well or badly, with or without TLS; it keeps what it received."""

import asyncio
import datetime
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GOOD = json.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "from far away"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
)


@dataclass
class Far:
    """The server's address and everything it was sent."""

    url: str
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0


def reply(body: str, status: str = "200 OK") -> bytes:
    """An HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    return head.encode() + body.encode()


@contextmanager
def far(
    answer: bytes | Callable[[bytes], bytes], *, delay: float = 0.0, cut: int = 0, tls: Path | None = None
) -> Iterator[Far]:
    """Serve `answer` (or what it makes of the request) to everyone.

    Args:
        delay: seconds before it answers.
        cut: send only so many bytes, then close.
        tls: folder with cert.pem and key.pem.
    """
    loop = asyncio.new_event_loop()
    found = Far("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            body = await reader.readexactly(size)
            found.received += head + body
            await asyncio.sleep(delay)
            data = answer(body) if callable(answer) else answer
            writer.write(data[:cut] if cut else data)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, StopIteration):
            pass
        finally:
            writer.transport.abort() if cut else writer.close()

    secure = None
    if tls is not None:
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(tls / "cert.pem", tls / "key.pem")
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=secure))
    port = server.sockets[0].getsockname()[1]
    found.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def certificate(folder: Path, name: str = "127.0.0.1") -> Path:
    """Write a self-signed certificate for `name`; returns the folder."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "far")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder
