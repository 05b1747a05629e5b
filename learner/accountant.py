"""How much privacy a set of private runs has spent.

One run is `steps` compositions of the Poisson-subsampled Gaussian mechanism; adjacency is add or remove one unit.
The ledger's figure is the privacy-loss-distribution (PLD) bound of dp-accounting (Doroshenko et al. 2022,
arXiv 2207.04380), an upper bound by construction. Opacus' PRV accountant (Gopi et al. 2021, arXiv 2106.02848) is an
independent second code for cross-checks. The Gaussian-DP approximation is deliberately absent: it under-reports.

This file knows numbers only: no data, no model.
"""

import functools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, ZCDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from store.errors import UsageError
from store.records import Spend

MAX_NOISE_MULTIPLIER = 1e4
PRV_ERROR = 2e-3  # share of epsilon that the cross-check's own bound may be off
LOSS_GRID = 1e-3  # of the discretised privacy loss, rounded up; a grid ten times finer moves epsilon by 1e-5


@dataclass(frozen=True, slots=True)
class MechanismRun:
    """The public parameters of one private run.

    Args:
        noise_multiplier: standard deviation of the noise over the clipping norm; above 0.
        sampling_rate: Poisson probability with which each unit joins a step; in (0, 1].
        steps: number of steps, including those whose batch was empty; at least 1.

    Raises:
        UsageError: a value lies outside its range or is not finite.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        """Refuse what no accountant can bound."""
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise UsageError(f"noise multiplier {self.noise_multiplier} is not above 0", code="bad_mechanism")
        if not 0 < self.sampling_rate <= 1:
            raise UsageError(f"sampling rate {self.sampling_rate} is not in (0, 1]", code="bad_mechanism")
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps is less than 1", code="bad_mechanism")


def runs_of(spends: Iterable[Spend]) -> list[MechanismRun]:
    """Return the mechanism behind each ledger entry, in order."""
    return [MechanismRun(s.noise_multiplier, s.sampling_rate, s.steps) for s in spends]


def epsilon(runs: Sequence[MechanismRun], delta: float) -> float:
    """Return the PLD upper bound on epsilon of all `runs` composed, at `delta`; 0 for no runs.

    Raises:
        UsageError: delta is not in (0, 1).
    """
    _check_delta(delta)
    return _composed(tuple(sorted(_merged(runs).items())), delta) if runs else 0.0


@functools.lru_cache(maxsize=1024)  # half a second each, and asked for the same public figures again and again
def _composed(runs: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=LOSS_GRID)
    for (sigma, rate), steps in runs:
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
        accountant.compose(SelfComposedDpEvent(event, steps))
    return float(accountant.get_epsilon(delta))


def epsilon_prv(runs: Sequence[MechanismRun], delta: float) -> float:
    """Return Opacus' PRV estimate of the same quantity: the cross-check, never the claim."""
    from opacus.accountants import PRVAccountant  # imports torch, which `privacy status` must not

    _check_delta(delta)
    accountant = PRVAccountant()
    accountant.history = [(sigma, rate, steps) for (sigma, rate), steps in _merged(runs).items()]
    error = max(1e-4, PRV_ERROR * epsilon(runs, delta))
    with warnings.catch_warnings():  # it warns of the coarse RDP bracket it starts its own search from
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=error)) if runs else 0.0


def epsilon_concentrated(rho: float, delta: float) -> float:
    """Return epsilon at `delta` of a mechanism with `rho` zero-concentrated privacy (Bun and Steinke 2016).

    By way of Rényi orders, as dp-accounting converts them.
    """
    _check_delta(delta)
    accountant = RdpAccountant()
    accountant.compose(ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


def calibrate(
    target: float, delta: float, *, sampling_rate: float, steps: int, spent: Sequence[MechanismRun] = ()
) -> float:
    """Return the least noise multiplier (to 0.1 %) with which `steps` more steps keep the total within `target`.

    Rounded so that the result never exceeds the target epsilon.

    Raises:
        UsageError: no noise multiplier up to 10,000 is enough, for example because `spent` already exceeds the target.
    """
    none = UsageError(f"no amount of noise fits epsilon {target:g} at delta {delta:g}", code="no_budget")
    if epsilon(spent, delta) > target:
        raise none

    def fits(sigma: float) -> bool:
        return epsilon([*spent, MechanismRun(sigma, sampling_rate, steps)], delta) <= target

    low, high = 0.0, 1.0
    while not fits(high):
        low, high = high, high * 2
        if high > MAX_NOISE_MULTIPLIER:
            raise none
    while high - low > 1e-3 * high:
        middle = (low + high) / 2 if low else high / 2
        if middle < 0.05:
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _merged(runs: Sequence[MechanismRun]) -> dict[tuple[float, float], int]:
    """Add up the steps of runs with the same noise and sampling rate."""
    steps: dict[tuple[float, float], int] = {}
    for run in runs:
        key = (run.noise_multiplier, run.sampling_rate)
        steps[key] = steps.get(key, 0) + run.steps
    return steps


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise UsageError(f"delta {delta} is not in (0, 1)", code="bad_mechanism")
