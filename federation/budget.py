"""May this run be spent? The device's own caps over its own ledger; the server has no say.

The total is that of a correction used in every run so far, which no correction can exceed. Recording is the caller's,
in the same transaction as the egress. A clock that is wrong never makes room: entries from the future count as young,
and while there are any nothing is spent at all.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federation.claim import claim
from federation.spec import Limits, RoundSpec
from learner.accountant import MechanismRun, epsilon, runs_of
from store.errors import BudgetExhausted
from store.records import Example, Spend

SLACK = 300.0  # seconds by which two looks at a sound clock may disagree


@dataclass(frozen=True, slots=True)
class Price:
    """What one run costs, at the limits' delta."""

    epsilon: float  # of this run alone
    total: float  # of the device's whole life with this run included


def price(spends: Iterable[Spend], spec: RoundSpec, limits: Limits, now: float) -> Price:
    """Return what a run by `spec` costs after `spends`.

    Raises:
        BudgetExhausted: a cap's period would go past its cap, or (code ``clock``) the ledger has entries from after
            `now`, so that no period can be told.
    """
    earlier = [spend for spend in spends if spend.unit == spec.unit]
    _require_clock(earlier, now)
    run = MechanismRun(spec.noise_multiplier, spec.sampling_rate, spec.steps)
    known: dict[tuple[Spend, ...], float] = {}

    def with_run(young: Sequence[Spend]) -> float:
        """Epsilon of `young` and the run, computed once: periods often hold the same entries."""
        if (key := tuple(young)) not in known:
            known[key] = epsilon([*runs_of(young), run], limits.delta)
        return known[key]

    for cap in limits.caps(spec.unit):
        total = with_run([spend for spend in earlier if spend.time > now - cap.seconds])
        if total > cap.epsilon:
            raise BudgetExhausted(
                f"The run would bring the {cap.period}'s total to {claim(total, limits.delta, spec.unit)}; "
                f"the cap is {cap.epsilon:.2f}.",
                hint="Wait until earlier runs are old enough, or raise the cap knowingly.",
            )
    return Price(with_run([]), with_run(earlier))


def together(specs: Iterable[RoundSpec], delta: float) -> float:
    """Return epsilon, at `delta`, of a unit that took part in a round of each of these specs."""
    return epsilon([MechanismRun(each.noise_multiplier, each.sampling_rate, each.steps) for each in specs], delta)


def eligible(
    examples: Iterable[Example], spends: Sequence[Spend], limits: Limits, now: float | None = None
) -> list[Example]:
    """Return the corrections that may teach a shared update: shareable, and not used often enough yet.

    A correction is used by every run after it was made, so its uses are the spends that are not older than it. One
    that claims to be from after `now` (None: the clock's) could not be counted and is left out until then.
    """
    latest = (time.time() if now is None else now) + SLACK
    return [
        example
        for example in examples
        if example.share
        and example.rejected is not None
        and example.time <= latest
        and sum(spend.time >= example.time for spend in spends) < limits.uses_per_correction
    ]


def _require_clock(spends: Sequence[Spend], now: float) -> None:
    """Refuse to reckon while the ledger is ahead of the clock."""
    if spends and max(spend.time for spend in spends) > now + SLACK:
        raise BudgetExhausted(
            "The clock stands before the ledger's newest entry, so no period of the budget can be told.",
            hint="Set the clock right. If an entry was written with a wrong clock, sharing rests until that time.",
            code="clock",
        )
