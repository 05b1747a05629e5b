"""Device-level privacy: bounded whatever the change, enough noise in the sum whoever colludes, and nothing sent."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from federation.privacy import BoundedLevels, DeviceSpec, bounded, calibrate, epsilon, opened, send, share
from learner.noise import discrete_gaussian
from store.errors import NotEligible, UsageError
from tools.audit.checks import adversarial

SPEC = DeviceSpec(bound=1.0, quantum=1e-3, count=500, noise_multiplier=1.0, quorum=20, colluding=4)


def total(changes: list[np.ndarray], spec: DeviceSpec) -> np.ndarray:
    """The sum of the devices' shares as the secure sum would give it."""
    residues = [share(bounded(change, spec), spec).residues for change in changes]
    return np.sum(residues, axis=0, dtype=np.uint64)


def test_no_change_however_odd_exceeds_the_sensitivity() -> None:
    """Two thousand adversarial changes, not finite ones included: the rounded norm keeps the bound it carries."""
    spec = replace(SPEC, count=24)
    for change in adversarial(2000, 24).numpy():
        levels = bounded(change, spec)
        assert np.linalg.norm(levels.values) <= levels.bound == spec.sensitivity


def test_the_sums_noise_is_the_claim_without_the_colluding_devices() -> None:
    """The honest devices' shares alone have the claimed deviation, within one percent."""
    spec = replace(SPEC, count=100_000)
    zero = BoundedLevels(np.zeros(spec.count, np.int64), spec.sensitivity)
    honest = [share(zero, spec).residues for _ in range(spec.quorum - spec.colluding)]
    noise = opened(np.sum(honest, axis=0, dtype=np.uint64), spec, spec.quorum) * spec.quorum / spec.quantum
    assert noise.std() / (spec.noise_multiplier * spec.sensitivity) == pytest.approx(1.0, abs=0.01)


def test_the_mean_comes_back_from_the_sum() -> None:
    """Twenty devices' shares add up to their mean change and noise of the public size."""
    spec = replace(SPEC, noise_multiplier=0.01, quantum=1e-5)
    change = np.full(spec.count, 0.5 / spec.count**0.5)
    mean = opened(total([change] * 20, spec), spec, 20)
    assert mean.mean() == pytest.approx(change[0], rel=0.05)


def test_one_share_alone_says_nothing_about_its_size() -> None:
    """A device without corrections, one with, and one with a broken change send the same number of residues."""
    sizes = {
        share(bounded(change, SPEC), SPEC).residues.nbytes
        for change in (np.zeros(500), np.ones(500), np.full(500, np.nan))
    }
    assert len(sizes) == 1


def test_a_sum_below_the_quorum_is_not_opened() -> None:
    """Its noise would be less than claimed."""
    with pytest.raises(NotEligible):
        opened(total([np.zeros(500)] * 19, SPEC), SPEC, 19)


def test_the_mode_refuses_to_send() -> None:
    """Until there is a secure sum nothing leaves, with a reason and exit code 15."""
    with pytest.raises(NotEligible) as refused:
        send(share(bounded(np.zeros(500), SPEC), SPEC))
    assert (refused.value.code, refused.value.exit_code) == ("no_secure_sum", 15)


def test_the_noise_is_a_discrete_gaussian() -> None:
    """Mean, variance and the chances of the middle values agree with the formula."""
    draws = discrete_gaussian(400_000, 3.0)
    assert (abs(draws.mean()), draws.std()) == (pytest.approx(0, abs=0.02), pytest.approx(3.0, rel=0.01))
    seen = np.array([(draws == k).sum() for k in range(-8, 9)])
    wanted = np.exp(-np.square(np.arange(-8, 9) / 3.0) / 2)
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-4


def test_accounting_is_an_upper_bound_near_the_gaussian() -> None:
    """Calibrated noise meets its target and costs at most 15 % more noise than the plain Gaussian would need."""
    from learner.accountant import calibrate as gaussian

    noise = calibrate(8.0, 1e-6, 10)
    specs = [replace(SPEC, noise_multiplier=noise)] * 10
    assert epsilon(specs, 1e-6) <= 8.0 < epsilon([*specs, *specs], 1e-6)
    assert 1.0 < noise / gaussian(8.0, 1e-6, sampling_rate=1.0, steps=10) < 1.15


@pytest.mark.parametrize("change", [{"colluding": 20}, {"noise_multiplier": 1e-3}, {"bits": 12}], ids=str)
def test_contradicting_specs_are_refused(change: dict[str, float]) -> None:
    """No honest device, noise too small for its grid, a sum that overflows."""
    with pytest.raises(UsageError):
        replace(SPEC, **change)
