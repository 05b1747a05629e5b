"""How well a stack of adapters answers, measured where the owner gets the answer: in llama.cpp.

Scores only; what they mean for an adapter is `gate`'s business.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from feedback.diff import edit_similarity
from feedback.engine import Engine, Score
from store.errors import UsageError
from store.records import Example, Slice

Stack = Sequence[tuple[str, bytes]]  # digest and GGUF bytes, in order of application
_MARGIN = 16  # tokens an answer may run longer than the wanted one


@dataclass(frozen=True, slots=True)
class ItemScore:
    """How one wanted answer fared."""

    exact: bool  # greedy decoding gives exactly this answer
    likelihood: float  # geometric mean probability per answer token, in [0, 1]
    whole: float = 0.0  # probability of the whole answer, in [0, 1]: how often a sampled answer is exactly this one
    similarity: float | None = None  # of the greedy answer to the wanted one, in [0, 1]; None: not generated

    @property
    def value(self) -> float:
        """Mean of what was measured, in [0, 1]."""
        parts = [float(self.exact), self.likelihood]
        return float(np.mean(parts if self.similarity is None else [*parts, self.similarity]))


@contextmanager
def serving(engine: Engine, stack: Stack, after: Stack) -> Iterator[None]:
    """Serve `stack` inside the block and `after` when it ends, however it ends."""
    try:
        engine.set_stack(stack)
        yield
    finally:
        engine.set_stack(after)


def score_corrections(engine: Engine, examples: Sequence[Example]) -> list[ItemScore]:
    """Score corrected answers: exact, likelihood, and similarity of what is answered now.

    The answer is generated only where the prefill has not already shown it to be exact.
    """
    known = score_known(engine, examples)
    return [_with_similarity(engine, one, score) for one, score in zip(examples, known, strict=True)]


def score_known(engine: Engine, examples: Sequence[Example]) -> list[ItemScore]:
    """Score answers that should still come: exact and likelihood, one prefill each, nothing generated.

    An example longer than the context scores zero.
    """
    items = [(example.messages, example.answer) for example in examples]
    try:
        return [_item(score) for score in engine.score_many(items)]
    except UsageError:
        return [_one(engine, example) for example in examples]


def compare(
    name: str, before: Sequence[ItemScore], after: Sequence[ItemScore],
    measure: Callable[[ItemScore], float] = lambda one: one.value,
) -> Slice:  # fmt: skip
    """Return the slice's mean values in points, or means of another measure of an item in [0, 1]."""
    means = [100 * float(np.mean([measure(item) for item in side])) if side else 0.0 for side in (before, after)]
    return Slice(name=name, count=len(before), before=means[0], after=means[1])


def _item(score: Score) -> ItemScore:
    """From the engine's natural-log mean to probabilities."""
    return ItemScore(score.exact, float(np.exp(score.logprob)), float(np.exp(score.tokens * score.logprob)))


def _one(engine: Engine, example: Example) -> ItemScore:
    """Score a single example; zero when it does not fit."""
    try:
        return _item(engine.score(example.messages, example.answer))
    except UsageError:
        return ItemScore(exact=False, likelihood=0.0)


def _with_similarity(engine: Engine, example: Example, score: ItemScore) -> ItemScore:
    """Add the similarity of the greedy answer."""
    if score.exact:
        return replace(score, similarity=1.0)
    room = 2 * len(engine.tokenize(example.answer)) + _MARGIN
    try:
        answer = engine.generate(example.messages, max_tokens=room).text
    except UsageError:
        return replace(score, similarity=0.0)
    return replace(score, similarity=edit_similarity(answer, example.answer))
