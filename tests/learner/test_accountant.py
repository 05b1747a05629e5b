"""The accountant: two independent codes agree, more use never costs less, and calibration never overshoots."""

import pytest

from learner.accountant import MechanismRun, calibrate, epsilon, epsilon_prv
from store.errors import UsageError

GRID = [
    MechanismRun(sigma, rate, steps)
    for sigma, rate, steps in [
        (0.8, 0.01, 100), (0.8, 0.1, 20), (1.0, 0.016, 188), (1.0, 0.25, 10), (1.1, 0.25, 60),
        (1.5, 0.25, 60), (2.0, 0.5, 40), (3.0, 1.0, 10), (4.0, 0.05, 1000), (6.0, 0.25, 240),
    ]
]  # fmt: skip


@pytest.mark.parametrize("run", GRID, ids=str)
def test_pld_and_prv_agree_within_two_percent(run: MechanismRun) -> None:
    """A mistake in either code or in how we call it would show as a gap between two independent accountants."""
    ours, check = epsilon([run], 1e-5), epsilon_prv([run], 1e-5)
    assert ours == pytest.approx(check, rel=0.02)


def test_composition_is_monotone_and_order_free() -> None:
    """Every further run raises epsilon, and the order of runs does not matter."""
    first, second = MechanismRun(1.5, 0.25, 20), MechanismRun(2.5, 0.1, 50)
    assert epsilon([], 1e-6) == 0.0
    assert epsilon([first], 1e-6) < epsilon([first, second], 1e-6)
    assert epsilon([first, second], 1e-6) == pytest.approx(epsilon([second, first], 1e-6), rel=1e-6)


def test_calibrated_noise_meets_the_target_and_is_not_wasteful() -> None:
    """The noise found is enough, and one percent less noise is not."""
    sigma = calibrate(4.0, 1e-6, sampling_rate=0.25, steps=60)
    assert epsilon([MechanismRun(sigma, 0.25, 60)], 1e-6) <= 4.0
    assert epsilon([MechanismRun(sigma * 0.99, 0.25, 60)], 1e-6) > 4.0


def test_calibration_pays_for_what_was_spent_before() -> None:
    """A device that already spent half its budget needs more noise for the same run."""
    spent = [MechanismRun(2.0, 0.25, 60)]
    fresh = calibrate(8.0, 1e-6, sampling_rate=0.25, steps=60)
    assert calibrate(8.0, 1e-6, sampling_rate=0.25, steps=60, spent=spent) > fresh


def test_no_noise_is_enough_once_the_budget_is_gone() -> None:
    """When the past alone exceeds the target, calibration says so instead of returning a number."""
    with pytest.raises(UsageError):
        calibrate(1.0, 1e-6, sampling_rate=0.25, steps=1, spent=[MechanismRun(0.8, 1.0, 1)])


@pytest.mark.parametrize(
    "bad", [(0.0, 0.1, 1), (-1.0, 0.1, 1), (float("nan"), 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, 0)]
)
def test_impossible_mechanisms_are_refused(bad: tuple[float, float, int]) -> None:
    """No accountant is ever asked about zero noise, an impossible rate or no steps."""
    with pytest.raises(UsageError):
        MechanismRun(*bad)
