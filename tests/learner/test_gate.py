"""The gate's arithmetic on its own."""

import random

import pytest

from learner.gate import GatePolicy, Learned, bootstrap, decide, fold_groups, fold_of
from store.records import Slice, digest

POLICY = GatePolicy()
GOOD = [(0.2, 0.6), (0.1, 0.5), (0.3, 0.4), (0.2, 0.9), (0.4, 0.5), (0.1, 0.6)]


def _slice(before: float, after: float) -> Slice:
    return Slice(name="probe", count=50, before=before, after=after)


def _requests(count: int) -> list[str]:
    return [digest(str(number).encode()) for number in range(count)]


def test_a_proven_gain_is_adopted() -> None:
    """The lower bound above zero is what adopts."""
    ruling = decide(GOOD, [_slice(90, 89.5)], POLICY)
    assert ruling.decision == "adopt"
    assert 0 < ruling.lower < ruling.gain < ruling.upper


def test_too_little_evidence_waits() -> None:
    """Four corrections prove nothing, however good they look."""
    assert decide(GOOD[:4], [], POLICY).decision == "wait"


def test_a_fallen_protected_slice_rejects_whatever_the_gain() -> None:
    """More than one point lost on what must stay is a rejection, also before there is evidence."""
    assert decide(GOOD, [_slice(90, 88.9)], POLICY).decision == "reject"
    assert decide([], [_slice(90, 88.9)], POLICY).decision == "reject"


def test_an_unproven_gain_waits_until_the_target_evidence() -> None:
    """A gain inside the noise asks for more evidence; with enough of it, it is no gain."""
    pairs = [(0.5, 0.52), (0.5, 0.3), (0.5, 0.75), (0.5, 0.4), (0.5, 0.6), (0.5, 0.48)]
    assert decide(pairs, [], POLICY).decision == "wait"
    assert decide(pairs * 4, [], POLICY).decision == "reject"


@pytest.mark.parametrize(
    ("right", "wrong", "fixed", "decision"),
    [(0.4, 0.05, 0, "adopt"), (0.4, 0.3, 6, "reject"), (0.4, 0.3, 12, "adopt")],
)
def test_a_gain_must_be_specific(right: float, wrong: float, fixed: int, decision: str) -> None:
    """An adapter to which all answers are likelier has learned none, unless it now gives many right ones."""
    learned = Learned([(0.0, float(number < fixed)) for number in range(24)], [(right, wrong)] * 24)
    assert decide(GOOD * 4, [], POLICY, learned=learned).decision == decision


def test_a_gain_that_is_not_specific_waits_while_evidence_is_thin() -> None:
    """Six corrections may be unlucky."""
    assert decide(GOOD, [], POLICY, learned=Learned([(0.0, 0.0)] * 6, [(0.1, 0.1)] * 6)).decision == "wait"


def test_one_answer_to_all_requests_has_nothing_to_be_told_from() -> None:
    """Then the gain alone counts."""
    assert decide(GOOD, [], POLICY, learned=Learned([(0.0, 0.0)] * 6, [])).decision == "adopt"


def test_a_loss_is_rejected() -> None:
    """A challenger that is worse on what it has never seen is refused at once."""
    assert decide([(b, a) for a, b in GOOD], [], POLICY).decision == "reject"


def test_the_same_evidence_gives_the_same_interval() -> None:
    """The bootstrap is seeded."""
    assert bootstrap(GOOD, POLICY) == bootstrap(GOOD, POLICY)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Over 300 samples of 40 pairs with a true gain of 5 points the 95 % interval holds it 90 to 98 % of the time."""
    rng = random.Random(1)
    policy = GatePolicy(resamples=400)
    hits = 0
    for _ in range(300):
        pairs = [(0.5, 0.55 + rng.gauss(0, 0.2)) for _ in range(40)]
        _, lower, upper = bootstrap(pairs, policy)
        hits += lower <= 5 <= upper
    assert 270 <= hits <= 294


def test_noise_is_adopted_no_more_often_than_the_tail_says() -> None:
    """Without any true gain, about 2.5 % of decisions adopt; never more than 6 % here."""
    rng = random.Random(2)
    policy = GatePolicy(resamples=400)
    adopted = sum(
        decide([(0.5, 0.5 + rng.gauss(0, 0.2)) for _ in range(30)], [], policy).decision == "adopt" for _ in range(300)
    )
    assert adopted <= 18


@pytest.mark.parametrize("count", [5, 12, 40, 300])
def test_every_fold_is_held_out_once(count: int) -> None:
    """Groups are a partition of the folds that occur."""
    requests = _requests(count)
    groups = fold_groups(requests, POLICY)
    folds = [fold for group in groups for fold in group]
    assert sorted(folds) == sorted({fold_of(request, POLICY) for request in requests})
    assert len(groups) <= POLICY.groups or count >= 5 * POLICY.target_evidence


def test_a_request_keeps_its_fold_for_life() -> None:
    """Folds come from the request's hash alone."""
    first = [fold_of(request, POLICY) for request in _requests(50)]
    assert first == [fold_of(request, POLICY) for request in _requests(50)]
    assert set(first) == set(range(POLICY.folds))
