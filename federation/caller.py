"""A device's calls to a fleet server: over TLS, to the pinned authority only, through the door that counts.

What leaves: a request to join (two public keys, a token, a signature) and requests for public files. Orders and
answers go through Flower's SuperNode. No proxy setting of the machine is followed.
"""

import email.utils
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from federation.door import Door
from federation.enrolment import Link, fingerprint
from store.errors import CorrigibleError, NetworkError, NotEligible, UsageError

SECONDS = 30.0
ANCHORS_LIMIT = 1 << 20  # bytes
EARLY, EXPIRED, WRONG_HOST = 9, 10, 62  # OpenSSL's verify codes
SKEW = 300.0  # seconds that two clocks may differ: Flower refuses what is signed by a clock that is further off


@contextmanager
def call(url: str, authority: bytes, door: Door | None) -> Iterator[httpx.Client]:
    """Yield a client of the server at `url` that trusts certificates of `authority` (PEM) alone.

    Args:
        door: the device's door to this server; None for who is no device (tests, benchmarks).

    Raises:
        NetworkError: it does not answer (code ``network``), or its certificate is not good (``certificate_expired``,
            ``certificate_early``, ``certificate_host``, ``certificate``).
    """
    context = ssl.create_default_context(cadata=authority.decode())
    with _translated(), _client(context, door, url) as client:
        yield client


def anchors(link: Link, door: Door | None) -> tuple[bytes, bytes]:
    """Return authority and root of the fleet behind a link, believed because the link pins their hash.

    Args:
        door: see `call`.

    Raises:
        NetworkError: it does not answer, or answers with other anchors (code ``fingerprint``).
    """
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    with _translated(), _client(unchecked, door) as client:
        data = _get(client, f"{link.url}/fleet/anchors", ANCHORS_LIMIT)
    try:
        value = json.loads(data)
        authority, root = value["authority"].encode(), value["root"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        authority, root = b"", b""
    if fingerprint(authority, root) != link.fingerprint:
        raise NetworkError(
            "This is not the server the invitation is for.",
            hint="Somebody may be in between. Ask the operator.",
            code="fingerprint",
        )
    return authority, root


def terms(client: httpx.Client, limit: int) -> bytes:
    """Return the fleet's signed terms as they travel, at most `limit` bytes."""
    with _translated():
        return _get(client, "/fleet/terms", limit)


def require_clock(client: httpx.Client, now: float | None = None) -> None:
    """Compare this device's clock (`now`, seconds since the epoch) with the server's.

    Raises:
        NetworkError: they are too far apart for the server to believe this device's signatures (code ``clock``).
    """
    with _translated():
        said = client.get("/healthz").headers.get("date", "")
    try:
        theirs = email.utils.parsedate_to_datetime(said).timestamp()
    except ValueError:
        return
    ahead = (time.time() if now is None else now) - theirs
    where = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) > SKEW:
        raise NetworkError(
            f"This device's clock is {abs(ahead) / 60:.0f} minutes {where} the fleet's.",
            hint="Set it right: the server takes no word from a clock that is more than five minutes off.",
            code="clock",
        )


def send(client: httpx.Client, request: bytes) -> str:
    """Send a request to join; return the name the operator gave this device.

    Raises:
        NotEligible: the invitation is not valid. UsageError: the request was refused. NetworkError: no answer.
    """
    with _translated():
        answer = client.post("/fleet/join", content=request)
    if answer.status_code == 200:
        return str(answer.json()["name"])
    word = _word(answer)
    if answer.status_code == 403:
        raise NotEligible("The invitation is not valid.", hint="Ask the operator for a new link.", code=word)
    if answer.status_code in (400, 413):
        raise UsageError("The server refused the request to join.", hint="Join again.", code=word)
    raise NetworkError("The server cannot enroll devices now.", hint="Try again later.", code=word)


def _client(context: ssl.SSLContext, door: Door | None, url: str = "") -> httpx.Client:
    """A client that follows no proxy setting but ours."""
    way = door.url if door else None
    return httpx.Client(base_url=url, verify=context, timeout=SECONDS, trust_env=False, proxy=way)


def _get(client: httpx.Client, url: str, limit: int) -> bytes:
    """A small public document."""
    data = bytearray()
    with client.stream("GET", url) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > limit:
                raise NetworkError("The server's answer is too long.", code="size")
    return bytes(data)


def _word(answer: httpx.Response) -> str:
    """The server's word for a refusal; one of ours, whatever it sent."""
    try:
        word = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return "refused"
    return word if isinstance(word, str) and word.isidentifier() and len(word) < 40 else "refused"


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the client raises into our errors."""
    try:
        yield
    except httpx.HTTPError as error:
        raise _network(error) from error


def _network(error: BaseException) -> CorrigibleError:
    """What a failed call means to a person."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return NetworkError("The fleet's server does not answer.", hint="Check the address and the network.")
    codes = {
        EARLY: ("is not valid yet, or this device's clock is behind", "certificate_early"),
        EXPIRED: ("has expired", "certificate_expired"),
        WRONG_HOST: ("is for another address", "certificate_host"),
    }
    words, code = codes.get(cause.verify_code, ("is not signed by the fleet's authority", "certificate"))
    return NetworkError(f"The server's certificate {words}.", hint="Ask the operator; nothing was sent.", code=code)
