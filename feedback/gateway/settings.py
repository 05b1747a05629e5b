"""How the gateway listens and what it allows, as values."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from store.errors import UsageError

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """All settings of the gateway.

    Attributes:
        host, port: where it listens; port 0 takes any free one.
        parallel: answers that may grow at once.
        waiting: requests that may wait for their turn; more get 429.
        origins: web origins, besides its own page, that browsers may call it from.
        hosts: names, besides loopback ones, under which it may be addressed.
        certificate, key: PEM files for TLS; needed beyond loopback.
        max_body: bytes of one request.
        max_headers: header fields of one request.
        patience: seconds that a client may take to send a request or to read a piece of the answer.
        keep_alive: seconds of silence in a stream after which a comment is sent.
    """

    host: str = "127.0.0.1"
    port: int = 7411
    parallel: int = 4
    waiting: int = 16
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    max_body: int = MEBIBYTE
    max_headers: int = 100
    patience: float = 30.0
    keep_alive: float = 10.0

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.certificate is not None and self.key is not None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_bind(settings: GatewaySettings, *, exposed: bool, tokens: int) -> None:
    """Refuse to listen beyond loopback unless the owner said so and both a token and TLS protect it.

    Args:
        exposed: the owner's explicit word.
        tokens: how many tokens there are.

    Raises:
        UsageError: something is missing (code ``exposed``).
    """
    if settings.loopback:
        return
    missing = [
        what
        for what, there in (("--expose", exposed), ("TLS (certificate and key)", settings.tls), ("a token", tokens > 0))
        if not there
    ]
    if missing:
        raise UsageError(
            f"{settings.host} can be reached from other machines; this needs {', '.join(missing)}.",
            hint="Listen on 127.0.0.1, or set certificate and key under [gateway] and say --expose.",
            code="exposed",
        )
