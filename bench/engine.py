"""Speed of the serving engine on the embedded model: `python -m bench.engine`. Prints one JSON object.

Everything runs on one thread and is measured in seconds of processor time, because the machine may be shared;
the median of several runs counts.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import llama_cpp

from feedback.engine import Engine
from feedback.models import check_model, embedded_model, probe_pairs
from store.records import Message, digest
from tests.feedback.micro import adapter

ITEMS = 100
SWAPS = 50


def main() -> None:
    """Measure and print."""
    path = embedded_model()
    pairs = probe_pairs(path)[:ITEMS]
    prompts = [[Message("user", prompt)] for prompt, _ in pairs]
    with Engine(check_model(path)) as engine:
        report = {
            "generate_tokens_per_second": generation(engine, prompts),
            "high_level_tokens_per_second": high_level(engine, prompts),
            "score_items_per_second": len(pairs) / timed(lambda: score(engine, pairs)),
            "score_one_by_one_items_per_second": len(pairs) / timed(lambda: score_each(engine, pairs)),
            "swap_milliseconds": swaps(engine),
        }
    print(json.dumps(report, indent=2))


def timed(work: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of `work`."""
    return statistics.median(_once(work) for _ in range(repeats))


def generation(engine: Engine, prompts: Sequence[Sequence[Message]]) -> dict[str, float]:
    """Greedy tokens per second with the prompt's pass counted (`whole`) and per token after it (`step`)."""
    answers = [engine.generate(prompt) for prompt in prompts]
    seconds = timed(lambda: [engine.generate(prompt) for prompt in prompts])
    first = timed(lambda: [engine.generate(prompt, max_tokens=1) for prompt in prompts])
    tokens = sum(answer.tokens_out for answer in answers)
    return {"whole": tokens / seconds, "step": (tokens - len(answers)) / (seconds - first)}


def high_level(engine: Engine, prompts: Sequence[Sequence[Message]]) -> dict[str, float]:
    """The same through `llama_cpp.Llama`, greedy, on the same rendered prompts."""
    llama = llama_cpp.Llama(str(engine.model.path), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)
    texts = [engine.render(prompt) for prompt in prompts]

    def complete(text: str, limit: int) -> int:
        made = llama.create_completion(text, max_tokens=limit, temperature=0.0)
        return int(made["usage"]["completion_tokens"])

    tokens = sum(complete(text, 256) + 1 for text in texts)  # and the end token, which the engine counts
    seconds = timed(lambda: [complete(text, 256) for text in texts])
    first = timed(lambda: [complete(text, 1) for text in texts])
    llama.close()
    return {"whole": tokens / seconds, "step": (tokens - len(texts)) / (seconds - first)}


def score(engine: Engine, pairs: Sequence[tuple[str, str]]) -> object:
    """All pairs in one call."""
    return engine.score_many([([Message("user", prompt)], answer) for prompt, answer in pairs])


def score_each(engine: Engine, pairs: Sequence[tuple[str, str]]) -> object:
    """One call a pair."""
    return [engine.score([Message("user", prompt)], answer) for prompt, answer in pairs]


def swaps(engine: Engine) -> dict[str, float]:
    """Milliseconds to serve with another adapter: `load` for one not seen before, `switch` for a loaded one.

    `first_token` is the first token of an answer as it is, `first_token_switched` right after a switch.
    """
    data = [adapter(engine.model.path, rank=8, seed=seed) for seed in range(SWAPS)]
    stacks = [[(digest(raw), raw)] for raw in data]
    load = [_once(partial(engine.set_stack, stack)) for stack in stacks]
    switch = [_once(partial(engine.set_stack, stack)) for stack in stacks[-2:] * SWAPS]
    first = partial(engine.generate, [Message("user", "turn on the lights")], max_tokens=1)
    calm, switched = [], []
    for stack in stacks[-2:] * SWAPS:
        engine.set_stack(stack)
        switched.append(_once(first))
        engine.score([Message("user", "x")], "y")  # so that the next answer starts without a cached conversation
        calm.append(_once(first))
    named = {"load": load, "switch": switch, "first_token": calm, "first_token_switched": switched}
    return {name: statistics.median(seconds) * 1e3 for name, seconds in named.items()}


def _once(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
