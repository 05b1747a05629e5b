"""Scores through the served path."""

import pytest

from feedback.engine import Engine
from learner.base import Base
from learner.export import to_gguf
from learner.fitness import random_adapter
from learner.judge import compare, score_corrections, score_known, serving
from store.records import Message, digest
from tests.learner.conftest import example


def test_what_is_answered_anyway_scores_full_marks(engine: Engine) -> None:
    """An answer equal to the greedy one is exact, wholly similar, and never generated twice."""
    engine.set_stack([])
    asked = [Message("user", "turn on the kitchen light")]
    item = score_corrections(engine, [example("turn on the kitchen light", engine.generate(asked).text)])[0]
    assert item.exact
    assert item.similarity == 1.0
    assert item.value > 0.6


def test_a_foreign_answer_scores_low(engine: Engine) -> None:
    """Nonsense is unlikely, unlike the answer given, and not exact."""
    engine.set_stack([])
    item = score_corrections(engine, [example("turn on the kitchen light", "zzz qqq 9999 zzz")])[0]
    assert not item.exact
    assert item.value < 0.2


def test_an_example_longer_than_the_context_scores_zero(engine: Engine) -> None:
    """It takes nothing from the others."""
    engine.set_stack([])
    short, long = example("turn on the light", "x"), example("word " * 900, "x")
    scores = score_known(engine, [short, long])
    assert scores[1].value == 0.0
    assert scores[0].value > 0.0
    assert score_corrections(engine, [long])[0].value == 0.0


def test_the_old_stack_serves_again_whatever_happens(engine: Engine, base: Base) -> None:
    """An error while a challenger is judged does not leave it serving."""
    data = to_gguf(random_adapter(base), base.geometry, base.digest)
    engine.set_stack([])
    with pytest.raises(RuntimeError), serving(engine, [(digest(data), data)], []):
        assert engine.stack == (digest(data),)
        raise RuntimeError
    assert engine.stack == ()


def test_a_slice_reports_means_in_points(engine: Engine) -> None:
    """Values of 0 to 1 become points of 0 to 100."""
    engine.set_stack([])
    items = score_known(engine, [example("turn on the light", "x"), example("turn off the light", "y")])
    part = compare("approved", items, items)
    assert part.count == 2
    assert part.before == part.after == pytest.approx(50 * (items[0].value + items[1].value))
