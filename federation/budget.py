"""May this run be spent? The device's own cap over its own ledger; the server has no say.

The unit is one correction. The total is that of a correction used in every run so far, which no correction can
exceed. Recording is the caller's, in the same transaction as the egress.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federation.spec import YEAR, Limits, RoundSpec
from learner.accountant import MechanismRun, epsilon, runs_of
from store.errors import BudgetExhausted
from store.records import Example, Spend


@dataclass(frozen=True, slots=True)
class Price:
    """What one run costs, at the limits' delta."""

    epsilon: float  # of this run alone
    total: float  # of the device's whole life with this run included


def price(spends: Iterable[Spend], spec: RoundSpec, limits: Limits, now: float) -> Price:
    """Return what a run by `spec` costs after `spends`.

    A clock that was set back makes spends look young, never old: the ledger does not understate.

    Raises:
        BudgetExhausted: the year's total would pass the cap.
    """
    earlier = [spend for spend in spends if spend.unit == spec.unit]
    run = MechanismRun(spec.noise_multiplier, spec.sampling_rate, spec.steps)
    young = [spend for spend in earlier if spend.time > now - YEAR]
    year = epsilon([*runs_of(young), run], limits.delta)
    if year > limits.epsilon_cap:
        raise BudgetExhausted(
            f"the run would bring the year to epsilon {year:.2f}, the cap is {limits.epsilon_cap:.2f}",
            hint="Wait until earlier runs are a year old, or raise the cap knowingly.",
        )
    total = year if len(young) == len(earlier) else epsilon([*runs_of(earlier), run], limits.delta)
    return Price(epsilon([run], limits.delta), total)


def eligible(examples: Iterable[Example], spends: Sequence[Spend], limits: Limits) -> list[Example]:
    """Return the corrections that may teach a shared update: shareable, and not used often enough yet.

    A correction is used by every run after it was made, so its uses are the spends that are not older than it.
    """
    return [
        example
        for example in examples
        if example.share
        and example.rejected is not None
        and sum(spend.time >= example.time for spend in spends) < limits.uses_per_correction
    ]
