"""The operator's own test of a release: the probe set that ships with the base model, answered through llama.cpp.

One fold of it only judges, the same as on devices; the others may choose and train.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feedback.engine import Engine
from feedback.models import check_model, probe_pairs
from learner.gate import GatePolicy, fold_of
from store.records import Example, Message, digest


def split(pairs: Sequence[tuple[str, str]]) -> tuple[list[Example], list[Example]]:
    """Return (public examples to learn from, examples that only judge)."""
    policy = GatePolicy()
    examples = [Example(messages=(Message("user", prompt),), answer=answer) for prompt, answer in pairs]
    judging = [fold_of(example.request, policy) == policy.guard_fold for example in examples]
    kept = [example for example, judges in zip(examples, judging, strict=True) if not judges]
    return kept, [example for example, judges in zip(examples, judging, strict=True) if judges]


@contextmanager
def probe_set(model: Path, items: int) -> Iterator[Callable[[bytes], float] | None]:
    """Yield a function from adapter bytes to points (0 to 100), or None when there is no probe set.

    A pair scores the mean of exactness and per-token likelihood of its answer, as the device's gate does.
    """
    _, pairs = split(probe_pairs(model))
    pairs = pairs[:items]
    if not pairs:
        yield None
        return
    engine = Engine(check_model(model))

    def points(data: bytes) -> float:
        engine.set_stack([(digest(data), data)])
        scores = engine.score_many([(pair.messages, pair.answer) for pair in pairs])
        return 50.0 * sum(score.exact + math.exp(score.logprob) for score in scores) / len(scores)

    try:
        yield points
    finally:
        engine.close()
