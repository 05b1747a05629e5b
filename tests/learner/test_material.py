"""What a learning run works with."""

from learner.gate import GatePolicy
from learner.material import divided

PAIRS = [(f"turn on lamp {number}", f"light.on(lamp={number})") for number in range(50)]


def test_the_ends_of_the_probe_judge_and_never_train() -> None:
    """The first are those that a base's maker held back, the last those that it trained on."""
    training, guard = divided(PAIRS, GatePolicy())
    answers = [answer for _, answer in PAIRS]
    assert [one.answer for one in guard] == [*answers[:6], *answers[41:]]
    assert [one.answer for one in training] == answers[6:41]


def test_a_request_that_judges_trains_in_no_other_place() -> None:
    """A probe set may hold a request twice."""
    training, guard = divided([*PAIRS, *PAIRS[:3]], GatePolicy())
    assert not {one.request for one in guard} & {one.request for one in training}


def test_without_probe_pairs_nothing_judges() -> None:
    """A model may come without any."""
    assert divided([], GatePolicy()) == ((), ())
