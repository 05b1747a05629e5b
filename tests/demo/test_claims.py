"""Every claim of the demo can fail: each is shown to, on a result in which only its own figure is bad."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cli.demo.claims import claims, paired_gain
from cli.demo.result import DemoResult, Exam
from tests.demo.sample import BAD, GOOD, RESULT, verdict

Change = Callable[[DemoResult], DemoResult]


def _life(**changes: object) -> Change:
    return lambda result: replace(result, lives=(replace(result.lives[0], **changes), *result.lives[1:]))


def _lives(**changes: object) -> Change:
    return lambda result: replace(result, lives=tuple(replace(life, **changes) for life in result.lives))


def _newcomer(**changes: object) -> Change:
    return lambda result: replace(
        result, newcomer=replace(result.newcomer, reception=replace(result.newcomer.reception, **changes))
    )


def _ledger(**changes: object) -> Change:
    return lambda result: replace(result, ledgers=(replace(result.ledgers[0], **changes), *result.ledgers[1:]))


def _round(**changes: object) -> Change:
    return lambda result: replace(result, rounds=(replace(result.rounds[0], **changes), *result.rounds[1:]))


def _scan(**changes: object) -> Change:
    return lambda result: replace(result, scan=replace(result.scan, **changes))


def _received(**changes: object) -> Change:
    return lambda result: replace(result, received=(replace(result.received[0], **changes), *result.received[1:]))


FORGOT = Exam(unseen=GOOD.unseen, old=(True,) * 49 + (False,))
WORSE = Exam(unseen=(False,) * 31 + (True,) * 9, old=BAD.old)

FAILURES: list[tuple[str, Change]] = [
    ("answered better", _lives(personal=BAD)),
    ("No owner is worse off", _life(personal=WORSE)),
    ("Old skills stay", _life(personal=FORGOT)),
    ("planted bad adapter", _life(planted=verdict("adopt"))),
    ("planted bad adapter", _life(planted=None)),
    ("Three federated rounds", _round(accepted=1)),
    ("Three federated rounds", _round(released=False)),
    ("Three federated rounds", lambda result: replace(result, rounds=result.rounds[:2])),
    ("never took part", _newcomer(exam=BAD)),
    ("never took part", _newcomer(verdict=verdict("wait"))),
    ("worse off for it", _received(exam=BAD)),
    ("privacy budget", _ledger(epsilon=8.1)),
    ("privacy budget", _ledger(unit="device")),
    ("privacy budget", lambda result: replace(result, epsilon=9.0)),
    ("numbers of one fixed size", _ledger(sizes=(1000, 1000, 999))),
    ("numbers of one fixed size", _ledger(spent_first=False)),
    ("numbers of one fixed size", _ledger(digests=("x", "x", "x"))),
    ("No logged sentence", _scan(hits=1)),
    ("No logged sentence", _scan(control=False)),
    ("No logged sentence", _scan(sentences=0)),
    ("Every store is whole", _ledger(whole=False)),
]


def test_all_claims_hold_on_a_good_result() -> None:
    """Eleven claims, none of them failing."""
    assert [one.holds for one in claims(RESULT)] == [True] * 11


@pytest.mark.parametrize(("words", "change"), FAILURES)
def test_a_bad_figure_fails_its_claim(words: str, change: Change) -> None:
    """The claim about the changed figure no longer holds."""
    (claim,) = [one for one in claims(change(RESULT)) if words in one.words]
    assert not claim.holds


def test_the_gain_is_paired_and_its_interval_is_around_it() -> None:
    """Twenty of forty answers mended is fifty points; nothing changed is exactly zero."""
    gain, low, high = paired_gain([(BAD, GOOD)])
    assert gain == pytest.approx(50.0)
    assert low < gain < high
    assert paired_gain([(BAD, BAD)]) == (0.0, 0.0, 0.0)
