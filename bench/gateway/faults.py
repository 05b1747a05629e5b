"""How long a request takes whose upstream fails: `python -m bench.gateway.faults`. Prints one JSON object.

Five ways to fail, each with every request reaching the upstream: the breaker, which would spare most of them the wait,
is closed again before each. Milliseconds of whole requests, answered by the device; `over` is what passes the timeout.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback.upstream.policy import UpstreamPolicy
from store.records import Consent
from tests.gateway.far import GOOD, certificate, far, reply
from tests.gateway.running import running

TIMEOUT = 1.0  # seconds
REQUESTS = 20
KINDS = ("down", "slow", "garbage", "cut", "tls")


def main() -> None:
    """Measure and print."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            folder = Path(place) / kind
            folder.mkdir()
            with faulty(kind, folder) as url:
                took[kind] = [one * 1e3 for one in requests(folder, url)]
    worst = sorted(one for times in took.values() for one in times)
    found = {kind: {"p50": at(times, 0.5), "p95": at(times, 0.95), "max": max(times)} for kind, times in took.items()}
    over = at(worst, 0.95) - TIMEOUT * 1e3
    print(json.dumps({"ms": found, "requests": len(worst), "p95_ms": at(worst, 0.95), "over_ms": over}, indent=1))


@contextmanager
def faulty(kind: str, folder: Path) -> Iterator[str]:
    """The address of an upstream that fails so."""
    if kind == "down":
        yield "http://127.0.0.1:9/v1"
        return
    how = {
        "slow": {"delay": 10 * TIMEOUT},
        "cut": {"cut": 150},
        "tls": {"tls": certificate(folder / "tls")},
    }.get(kind, {})
    answer = b"\x00\x01 this is not HTTP\r\n\r\n" if kind == "garbage" else reply(GOOD)
    with far(answer, **how) as other:  # type: ignore[arg-type]
        yield other.url


def requests(folder: Path, url: str) -> list[float]:
    """Seconds that each request takes."""
    policy = UpstreamPolicy(url=url, model="big", timeout=TIMEOUT)
    took = []
    with running(folder, upstream=policy) as served:
        assert served.gateway.upstream is not None
        served.store.add(Consent(purpose="upstream", granted=True, destination=policy.origin, time=time.time()))
        served.ask("warm up")
        for _ in range(REQUESTS):
            served.gateway.upstream.breaker.succeeded()
            start = time.perf_counter()
            answer = served.ask("turn off the kitchen light", model=served.gateway.catalogue.name + "@upstream")
            took.append(time.perf_counter() - start)
            told = answer.headers["x-corrigible-source"], answer.headers.get("x-corrigible-fallback")
            if answer.status_code != 200 or told[0] != "device" or told[1] in (None, "resting"):
                raise SystemExit(f"{url}: {answer.status_code} {told}")
    return took


def at(times: list[float], part: float) -> float:
    """The value below which so many lie."""
    return sorted(times)[min(len(times) - 1, int(part * len(times)))]


if __name__ == "__main__":
    main()
