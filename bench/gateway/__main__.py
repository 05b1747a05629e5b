"""What HTTP costs: `python -m bench.gateway`. Prints one JSON object.

The gateway serves in a process of its own. This process asks the same prompts, greedy, one thread, in turns: as a
stream over loopback, and bare through `llama_cpp.Llama` with the same settings. All figures are medians over prompts:
rates from the first token to the last, the wait for the first, and rates of whole requests, which both go into. Then a
hundred swaps of adapters under four streams. `--large` takes random weights of 58 million parameters with a vocabulary
of 32,000 instead of the embedded model.
"""

import argparse
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import llama_cpp

from bench.gateway.served import serve
from feedback.models import embedded_model, probe_pairs
from tests.feedback.micro import Shape, write_model

LARGE = Shape(width=512, heads=8, layers=8, inner=1408, context=1024, words=32_000)
TOKENS = 64
SHORTEST = 10  # tokens of an answer whose rate is taken
WARM = 3
REST = 0.05  # seconds before each prompt: people pause, too, and the answer before is being recorded
SWAPS = 100
STREAMS = 4
CALM = 5.0  # seconds of streams without swaps
SHOWN = re.compile(rb'"content": "[^"]')  # a piece that shows text


@dataclass(frozen=True)
class Served:
    """A gateway in another process."""

    url: str
    token: str
    orders: Connection


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--prompts", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = write_model(folder / "large.gguf", LARGE) if given.large else embedded_model()
        with gateway(folder, model) as served:
            found = {"stream": streams(served, model, given.prompts), "swaps": swaps(served)}
    print(json.dumps(found, indent=1))


@contextmanager
def gateway(folder: Path, model: Path) -> Iterator[Served]:
    """A gateway on `model`, until the block ends."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, folder, model))
    process.start()
    try:
        url, token = ours.recv()
        yield Served(url, token, ours)
    finally:
        ours.send(0)
        process.join(20)


def streams(served: Served, model: Path, count: int) -> dict[str, float]:
    """Both on each prompt, in turns."""
    bare = llama_cpp.Llama(str(model), n_ctx=1024, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False)
    prompts = [prompt for prompt, _ in probe_pairs(embedded_model())]
    pairs: list[tuple[Took, Took]] = []
    connection = HTTPConnection(served.url.removeprefix("http://"))
    while len(pairs) < count + WARM:
        time.sleep(REST)
        prompt = prompts.pop(0)
        ours = through(served, connection, prompt)
        if ours.count >= SHORTEST:
            pairs.append((ours, directly(bare, prompt, ours.prompt)))
    bare.close()
    ours, theirs = zip(*pairs[WARM:], strict=True)
    return {
        "tokens_per_second_over_bare": statistics.median(a.rate / b.rate for a, b in pairs[WARM:]),
        "added_first_token_ms_p50": statistics.median((a.first - b.first) * 1e3 for a, b in pairs[WARM:]),
        "whole_request_tokens_per_second_over_bare": statistics.median(a.whole / b.whole for a, b in pairs[WARM:]),
        **{f"tokens_per_second_{who}": statistics.median(one.rate for one in took)
           for who, took in (("gateway", ours), ("bare", theirs))},
        **{f"first_token_ms_{who}": statistics.median(one.first * 1e3 for one in took)
           for who, took in (("gateway", ours), ("bare", theirs))},
        "tokens_p50": statistics.median(one.count for one in ours),
        "pieces_per_token": sum(one.pieces for one in ours) / sum(one.count - 1 for one in ours),
    }  # fmt: skip


@dataclass(frozen=True)
class Took:
    """One answer: seconds to its first text, its last text and its end; tokens of prompt and answer; pieces read."""

    first: float
    last: float
    end: float
    prompt: int
    count: int
    pieces: int

    @property
    def rate(self) -> float:
        """Tokens per second after the first; the end token shows no text."""
        return (self.count - 2) / max(self.last - self.first, 1e-6)

    @property
    def whole(self) -> float:
        """Tokens per second of the request as a whole."""
        return self.count / self.end


def through(served: Served, connection: HTTPConnection, prompt: str) -> Took:
    """A stream of the gateway's, read with as little work as possible: the client shares the machine."""
    start = time.perf_counter()
    _, came = read(served, connection, prompt)
    end = time.perf_counter() - start
    shown = [when - start for when, piece in came if SHOWN.search(piece)]
    counted = [line for line in b"".join(piece for _, piece in came).splitlines() if b'"completion_tokens"' in line]
    usage = json.loads(counted[0].removeprefix(b"data: "))["usage"]
    return Took(shown[0], shown[-1], end, usage["prompt_tokens"], usage["completion_tokens"], len(shown))


def read(served: Served, connection: HTTPConnection, prompt: str) -> tuple[HTTPResponse, list[tuple[float, bytes]]]:
    """Ask for a stream and read it: the response, and what came when."""
    headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
    came: list[tuple[float, bytes]] = []
    connection.request("POST", "/v1/chat/completions", json.dumps(asked(prompt)), headers)
    answer = connection.getresponse()
    while piece := answer.read1(65536):
        came.append((time.perf_counter(), piece))
    return answer, came


def directly(bare: Any, prompt: str, size: int) -> Took:  # noqa: ANN401 - llama_cpp's own
    """The same of llama-cpp-python's own chat stream; `size` is the prompt's, in tokens."""
    start, first, last = time.perf_counter(), 0.0, 0.0
    turns = [{"role": "user", "content": prompt}]
    for chunk in bare.create_chat_completion(turns, stream=True, temperature=0.0, max_tokens=TOKENS):
        if chunk["choices"][0]["delta"].get("content"):
            last = time.perf_counter() - start
            first = first or last
    end = time.perf_counter() - start
    count = bare.n_tokens - size + 1  # the last token is never fed
    return Took(first, last, end, size, count, count - 1)


def swaps(served: Served) -> dict[str, object]:
    """Milliseconds that swaps take, and what four streams see of them: what became of the requests, and the longest
    silence within each answer, as many seconds without swaps before for comparison.
    """
    calm = asking(served, 0)
    busy = asking(served, SWAPS)
    return {
        "swaps": SWAPS,
        "ms": spread(busy.took),
        "silence_ms": spread(busy.silences),
        "silence_ms_without_swaps": spread(calm.silences),
        "answers": len(busy.statuses),
        "stacks": len(set(busy.names)),
        "failed": sum(status != 200 for status in busy.statuses),
        "unnamed": sum(not name for name in busy.names),
    }


@dataclass
class Seen:
    """What four streams saw: of each answer its status, its stack and its longest silence; and what swaps took."""

    statuses: list[int] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    silences: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


def asking(served: Served, count: int) -> Seen:
    """Ask in four streams while adapters are swapped `count` times, or for `CALM` seconds."""
    stop, seen = threading.Event(), Seen()

    def ask() -> None:
        connection = HTTPConnection(served.url.removeprefix("http://"))
        while not stop.is_set():
            answer, came = read(served, connection, "turn on the light")
            shown = [when for when, piece in came if SHOWN.search(piece)]
            seen.statuses.append(answer.status)
            seen.names.append(answer.headers["x-corrigible-adapter"])
            seen.silences.append(max((b - a for a, b in pairwise(shown)), default=0.0) * 1e3)

    threads = [threading.Thread(target=ask) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    if count:
        served.orders.send(count)
        seen.took = served.orders.recv()
    else:
        time.sleep(CALM)
    stop.set()
    for thread in threads:
        thread.join()
    return seen


def spread(values: list[float]) -> dict[str, float]:
    """The middle, what one in twenty passes, and the most."""
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p95": ordered[int(0.95 * len(ordered))], "max": ordered[-1]}


def asked(prompt: str) -> dict[str, object]:
    """The body of a request."""
    turns = [{"role": "user", "content": prompt}]
    return {"messages": turns, "max_tokens": TOKENS, "stream": True, "stream_options": {"include_usage": True}}


if __name__ == "__main__":
    main()
