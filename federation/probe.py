"""The operator's own test of a release: the probe set that ships with the base model, answered through llama.cpp."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback.engine import Engine
from feedback.models import check_model, probe_pairs
from store.records import Message, digest


@contextmanager
def probe_set(model: Path, items: int) -> Iterator[Callable[[bytes], float] | None]:
    """Yield a function from adapter bytes to points (0 to 100), or None when there is no probe set.

    A pair scores the mean of exactness and per-token likelihood of its answer, as the device's gate does.
    """
    pairs = probe_pairs(model)[:items]
    if not pairs:
        yield None
        return
    engine = Engine(check_model(model))

    def points(data: bytes) -> float:
        engine.set_stack([(digest(data), data)])
        scores = [engine.score([Message("user", prompt)], answer) for prompt, answer in pairs]
        return 50.0 * sum(score.exact + math.exp(score.logprob) for score in scores) / len(scores)

    try:
        yield points
    finally:
        engine.close()
