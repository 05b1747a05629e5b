"""Past answers found by words: order, newest answers, and what is shown to a real model."""

import math
from collections.abc import Iterator

import pytest

from feedback.engine import Engine
from feedback.models import check_model, embedded_model
from learner.replay import Answers
from learner.retrieval import K1, B, PastAnswers, conversation
from store.records import Message


@pytest.fixture
def past() -> PastAnswers:
    """Four requests."""
    found = PastAnswers()
    for prompt, answer in (("dim the hall", "a"), ("dim the porch", "b"), ("buy milk", "c"), ("the the the", "d")):
        found.add(prompt, answer)
    return found


def test_the_most_similar_comes_last(past: PastAnswers) -> None:
    """A rare word counts more than one that most requests hold; what shares nothing is not shown."""
    assert past.nearest("Dim the HALL!", 3) == [("the the the", "d"), ("dim the porch", "b"), ("dim the hall", "a")]
    assert past.nearest("dim the hall", 1) == [("dim the hall", "a")]
    assert past.nearest("dim the hall", 0) == []
    assert past.nearest("open windows", 3) == []


def test_the_newest_answer_counts(past: PastAnswers) -> None:
    """A request told twice is one request."""
    past.add("buy milk", "e")
    assert past.nearest("milk", 5) == [("buy milk", "e")]


def test_scores_by_hand(past: PastAnswers) -> None:
    """One word that one of four requests holds: the formula with lengths 2 and (3 + 3 + 2 + 3) / 4."""
    rarity = math.log(1 + (4 - 1 + 0.5) / (1 + 0.5))
    wanted = rarity * (K1 + 1) / (1 + K1 * (1 - B + B * 2 / 2.75))
    score = past._score(past._words["buy milk"] - past._words["buy milk"].__class__(["buy"]), "buy milk")
    assert score == pytest.approx(wanted)


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """The embedded model with a short context."""
    with Engine(check_model(embedded_model()), context=128) as engine:
        yield Answers(engine, 24)


def test_what_is_shown_stands_before_the_request_and_what_does_not_fit_is_left_out(answers: Answers) -> None:
    """As turns of a conversation; of a long and a short one the short one is shown, being the more similar."""
    past = PastAnswers()
    assert answers.shown(past, "buy milk", 3) == answers.ask("buy milk")
    past.add("buy " + "bread " * 200, "no")
    past.add("buy milk", 'shopping.add(item="soap")')
    messages = conversation([("buy milk", 'shopping.add(item="soap")')], "buy milk")
    assert [one.role for one in messages] == ["user", "assistant", "user"]
    shown = answers.shown(past, "buy milk", 2)
    assert shown is not None
    assert shown == answers.engine.generate(messages, max_tokens=24)
    assert answers.ask("buy milk") == answers.engine.generate((Message("user", "buy milk"),), max_tokens=24)
