"""The budget: caps per unit and period, a clock that cannot make room, and a ledger others can recount."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from federation.budget import eligible, price
from federation.claim import claim
from federation.spec import MONTH, YEAR, Limits
from store.errors import BudgetExhausted
from store.records import Example, Message, Spend
from tests.federation.desk import make_spec
from tools import recount
from tools.torture import release

NOW = 2_000_000_000.0
SPEC = make_spec()  # about epsilon 2 a round


def spends(*ages: float, limits: Limits | None = None) -> list[Spend]:
    """Runs by SPEC of these ages in seconds, oldest first, priced one after the other."""
    found: list[Spend] = []
    for number, age in enumerate(ages):
        cost = price(found, SPEC, limits or Limits(epsilon_cap=1e3), NOW - age)
        found.append(
            Spend(
                run=str(number), unit="correction", noise_multiplier=SPEC.noise_multiplier,
                sampling_rate=SPEC.sampling_rate, steps=SPEC.steps, clipping_norm=SPEC.clipping_norm, delta=1e-6,
                epsilon=cost.epsilon, total=cost.total, payload=f"sha256:{number:064x}", time=NOW - age,
            )
        )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("limits", "ages", "word"),
    [
        (Limits(epsilon_cap=3.0), (10.0,), "year"),
        (Limits(epsilon_cap_month=3.0), (MONTH - 10,), "month"),
        (Limits(epsilon_cap_life=3.0), (5 * YEAR,), "life"),
    ],
    ids=["year", "month", "life"],
)
def test_each_period_has_its_cap(limits: Limits, ages: tuple[float, ...], word: str) -> None:
    """A second run inside the period is refused with exit 14 and the period's name."""
    with pytest.raises(BudgetExhausted, match=word) as refused:
        price(spends(*ages), SPEC, limits, NOW)
    assert refused.value.exit_code == 14


def test_outside_the_period_there_is_room_again() -> None:
    """A year's cap forgets what is older than a year, a month's what is older than a month; the total never does."""
    assert price(spends(YEAR + 10), SPEC, Limits(epsilon_cap=3.0), NOW).total > 2.5
    assert price(spends(MONTH + 10), SPEC, Limits(epsilon_cap_month=3.0), NOW).total > 2.5


def test_a_cap_on_devices_is_none_on_corrections() -> None:
    """Units have caps of their own."""
    assert price([], SPEC, Limits(device_epsilon_cap=0.1), NOW).epsilon > 1
    assert [cap.epsilon for cap in Limits(device_epsilon_cap=0.1).caps("device")] == [0.1]


@pytest.mark.parametrize("back", [3600.0, YEAR, 20 * YEAR])
def test_a_clock_set_back_stops_spending(back: float) -> None:
    """While the ledger has an entry from the future nothing is spent, and the reason is the clock."""
    with pytest.raises(BudgetExhausted) as refused:
        price(spends(10.0), SPEC, Limits(epsilon_cap=1e3), NOW - back)
    assert refused.value.code == "clock"


def test_a_clock_that_runs_ahead_makes_room_only_once() -> None:
    """Setting the clock a year ahead frees the cap; setting it right again then stops all spending until that day."""
    before = spends(10.0)
    assert price(before, SPEC, Limits(epsilon_cap=3.0), NOW + 2 * YEAR)
    ahead = [*before, replace(before[0], run="ahead", time=NOW + 2 * YEAR)]
    with pytest.raises(BudgetExhausted):
        price(ahead, SPEC, Limits(epsilon_cap=1e3), NOW)


def test_a_correction_from_the_future_waits() -> None:
    """Its uses could not be counted, so it teaches nothing until its time has come."""
    future = Example(messages=(Message("user", "q"),), answer="a", rejected="b", time=NOW + YEAR)
    assert eligible([future], [], Limits(), NOW) == []
    assert eligible([future], [], Limits(), NOW + 2 * YEAR) == [future]


def test_an_independent_recount_of_the_log_agrees_within_one_percent() -> None:
    """Totals and single prices, by another method and another program, from the log alone; a changed one is found."""
    log = [asdict(spend) for spend in spends(3.0, 2.0, 1.0)]
    egress = [{"purpose": "share", "payload": spend["payload"], "size": 7} for spend in log]
    assert recount.complaints(log, egress) == []
    log[2]["total"] *= 0.97
    assert len(recount.complaints(log, egress)) == 1
    assert recount.complaints(log[:2], egress) != []


def test_the_recount_reads_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`privacy ledger --json` holds all that is needed."""
    from cli.main import run
    from cli.session import Session

    monkeypatch.setenv("CORRIGIBLE_HOME", str(tmp_path / "home"))
    assert run(["init", "--key", "file", "--insecure-key-file", "--json"]) == 0
    with Session(place=tmp_path / "home").store() as store:
        store.add_all([replace(spend, time=time.time() - 100 + n) for n, spend in enumerate(spends(3.0, 2.0))])
        log = [asdict(spend) for spend in store.all(Spend)]
    assert [total for _, total in recount.recount(json.loads(json.dumps(log)))] == pytest.approx(
        [spend["total"] for spend in log], rel=0.01
    )


def test_kills_around_a_release_never_leave_it_unpaid(tmp_path: Path) -> None:
    """A short form of `python -m tools.torture release`: what left is in both ledgers, whenever the power went."""
    outcome = release.run(tmp_path, 6)
    assert not outcome.bad, outcome.words()


def test_the_harness_would_notice_a_release_before_the_ledger(tmp_path: Path) -> None:
    """A payload that left and is not written down makes the comparison go red."""
    from tools.torture.common import Outcome, new_home

    outcome = Outcome("planted")
    release._compare(new_home(tmp_path / "home"), {"sha256:" + "0" * 64}, outcome, 0)
    assert outcome.bad


def test_an_epsilon_never_stands_alone() -> None:
    """Delta, unit, adjacency and trust are part of the sentence."""
    words = claim(2.0, 1e-6, "correction")
    assert all(part in words for part in ("2.00", "1e-06", "per correction", "add or remove one", "not trusted"))
