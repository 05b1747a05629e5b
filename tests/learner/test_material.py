"""What a learning run works with."""

from learner.gate import GatePolicy
from learner.material import divided

PAIRS = [(f"turn on lamp {number}", f"light.on(lamp={number})") for number in range(50)]


def test_the_first_fifth_of_the_probe_judges_and_never_trains() -> None:
    """They are the ones that a base's maker held back, in their order."""
    training, guard = divided(PAIRS, GatePolicy())
    assert [one.answer for one in guard] == [answer for _, answer in PAIRS[:10]]
    assert [one.answer for one in training] == [answer for _, answer in PAIRS[10:]]


def test_a_request_that_judges_trains_in_no_other_place() -> None:
    """A probe set may hold a request twice."""
    training, guard = divided([*PAIRS, *PAIRS[:3]], GatePolicy())
    assert not {one.request for one in guard} & {one.request for one in training}


def test_without_probe_pairs_nothing_judges() -> None:
    """A model may come without any."""
    assert divided([], GatePolicy()) == ((), ())
