"""What HTTP costs: `python -m bench.gateway`. Prints one JSON object.

The same prompts, greedy, one thread, in turns: through the gateway as a stream over loopback, and bare through
`llama_cpp.Llama` in this process. Rates and first tokens are medians; ratios mean something on a loaded machine too.
Then a hundred swaps of adapters under four streams.
"""

import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import llama_cpp

from feedback.models import embedded_model, probe_pairs
from store.paths import Home
from store.protectors import KeyFile
from store.records import digest
from store.store import Store
from tests.feedback.micro import adapter
from tests.gateway.running import Running, running

PROMPTS = 40
SWAPS = 100
STREAMS = 4


def main() -> None:
    """Measure and print."""
    raw = [adapter(embedded_model(), rank=4, scale=0.1, seed=seed) for seed in (1, 2, 3)]
    table = {digest(data): (digest(data), data) for data in raw}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with (
            Store.create(Home.locate(folder / "home"), KeyFile()) as store,
            running(folder, store=store, adapters=table) as served,
        ):
            print(json.dumps({"stream": streams(served), "swaps": swaps(served, list(table))}, indent=1))


def streams(served: Running) -> dict[str, float]:
    """Tokens per second and first tokens of both, prompt by prompt in turns."""
    path = str(embedded_model())
    bare = llama_cpp.Llama(path, n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
    prompts = [prompt for prompt, _ in probe_pairs(embedded_model())[:PROMPTS]]
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    engine: list[tuple[float, float]] = []
    with served.client() as client:
        for prompt in [*prompts[:3], *prompts]:
            ours.append(through(client, prompt))
            theirs.append(directly(bare, prompt))
            engine.append(in_process(served, prompt))
    ours, theirs, engine = ours[3:], theirs[3:], engine[3:]
    bare.close()
    rates = [a[1] / b[1] for a, b in zip(ours, theirs, strict=True)]
    added = [(a[0] - b[0]) * 1e3 for a, b in zip(ours, theirs, strict=True)]
    over_engine = [(a[0] - b[0]) * 1e3 for a, b in zip(ours, engine, strict=True)]
    return {
        "tokens_per_second_over_bare": statistics.median(rates),
        "added_first_token_ms_p50": statistics.median(added),
        "added_first_token_ms_over_own_engine_p50": statistics.median(over_engine),
        "first_token_ms_gateway": statistics.median(a[0] for a in ours) * 1e3,
        "first_token_ms_bare": statistics.median(b[0] for b in theirs) * 1e3,
        "tokens_per_second_gateway": statistics.median(a[1] for a in ours),
        "tokens_per_second_bare": statistics.median(b[1] for b in theirs),
    }


def through(client: httpx.Client, prompt: str) -> tuple[float, float]:
    """(seconds to the first token, tokens per second) of a stream."""
    turns = [{"role": "user", "content": prompt}]
    body = {"messages": turns, "stream": True, "stream_options": {"include_usage": True}}
    start, first, count = time.perf_counter(), 0.0, 0
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not first and '"content": "' in line and '"content": ""' not in line:
                first = time.perf_counter() - start
            if '"completion_tokens"' in line:
                count = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return first, count / (time.perf_counter() - start)


def directly(bare: Any, prompt: str) -> tuple[float, float]:  # noqa: ANN401 - llama_cpp's own
    """The same of llama-cpp-python's own chat stream."""
    start, first, count = time.perf_counter(), 0.0, 1  # the end token, which it does not count
    turns = [{"role": "user", "content": prompt}]
    for chunk in bare.create_chat_completion(turns, stream=True, temperature=0.0, max_tokens=256):
        if chunk["choices"][0]["delta"].get("content"):
            first = first or time.perf_counter() - start
            count += 1
    return first, count / (time.perf_counter() - start)


def in_process(served: Running, prompt: str) -> tuple[float, float]:
    """The same of our own engine without HTTP."""
    from store.records import Message

    start = time.perf_counter()
    firsts: list[float] = []
    answer = served.gateway.engine.generate(
        [Message("user", prompt)], on_token=lambda _: not firsts.append(time.perf_counter() - start)
    )
    return firsts[0], answer.tokens_out / (time.perf_counter() - start)


def swaps(served: Running, names: list[str]) -> dict[str, float]:
    """Milliseconds that a swap takes, and what became of the requests meanwhile."""
    stop, results = threading.Event(), []

    def ask() -> None:
        with served.client() as client:
            while not stop.is_set():
                body = {"messages": [{"role": "user", "content": "turn on the light"}], "stream": True}
                answer = client.post("/v1/chat/completions", json=body)
                results.append((answer.status_code, answer.headers.get("x-corrigible-adapter")))

    threads = [threading.Thread(target=ask) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    took = []
    for number in range(SWAPS):
        served.store.activate("personal", [None, *names][number % 4], "bench")
        start = time.perf_counter()
        served.gateway.catalogue.refresh()
        took.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.03)
    stop.set()
    for thread in threads:
        thread.join()
    ordered = sorted(took)
    return {
        "swaps": SWAPS,
        "ms_p50": statistics.median(took),
        "ms_p95": ordered[int(0.95 * SWAPS)],
        "ms_max": ordered[-1],
        "answers": len(results),
        "failed": sum(status != 200 for status, _ in results),
        "unnamed": sum(not name for _, name in results),
    }


if __name__ == "__main__":
    main()
