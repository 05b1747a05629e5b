"""The operator's own test of a release: the probe set that ships with the base model, answered through llama.cpp.

One fold of it only judges, the same as on devices; the others may choose and train.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feedback.engine import Engine
from feedback.models import check_model, probe_pairs, read_pairs
from learner.gate import GatePolicy, fold_of
from store.records import Example, Message, digest

Score = Callable[[bytes], float]


def examples_of(pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Return (prompt, answer) pairs as examples."""
    return [Example(messages=(Message("user", prompt),), answer=answer) for prompt, answer in pairs]


def split(pairs: Sequence[tuple[str, str]]) -> tuple[list[Example], list[Example]]:
    """Return (public examples to learn from, examples that only judge)."""
    policy = GatePolicy()
    examples = examples_of(pairs)
    judging = [fold_of(example.request, policy) == policy.guard_fold for example in examples]
    kept = [example for example, judges in zip(examples, judging, strict=True) if not judges]
    return kept, [example for example, judges in zip(examples, judging, strict=True) if judges]


@dataclass(frozen=True, slots=True)
class Probes:
    """What a release is asked before it is signed; both take adapter bytes and give points, 0 to 100."""

    skills: Score | None  # how well old skills are kept
    triggers: Score | None  # how likely answers are that somebody might try to plant


@contextmanager
def probe_set(model: Path, items: int, triggers: Path | None = None) -> Iterator[Probes]:
    """Yield the operator's probes; one without pairs is None.

    A pair scores the mean of exactness and per-token likelihood of its answer, as the device's gate does.

    Args:
        items: most pairs of the probe set beside the model.
        triggers: JSONL of pairs whose answers must not become likely (suspicious requests, unwanted answers).
    """
    _, skills = split(probe_pairs(model))
    unwanted = [] if triggers is None else examples_of(read_pairs(triggers))
    if not skills[:items] and not unwanted:
        yield Probes(None, None)
        return
    engine = Engine(check_model(model))
    try:
        yield Probes(_score(engine, skills[:items]), _score(engine, unwanted))
    finally:
        engine.close()


def _score(engine: Engine, pairs: Sequence[Example]) -> Score | None:
    """Mean points of an adapter over `pairs`."""

    def points(data: bytes) -> float:
        engine.set_stack([(digest(data), data)])
        scores = engine.score_many([(pair.messages, pair.answer) for pair in pairs])
        return 50.0 * sum(score.exact + math.exp(score.logprob) for score in scores) / len(scores)

    return points if pairs else None
