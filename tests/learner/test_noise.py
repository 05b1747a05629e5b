"""The noise has the promised size, is normal, and wrong noise would be noticed."""

import numpy as np
import pytest
from scipy import stats

from learner.noise import ClippedSum, gaussian, noised, poisson_sample, stochastic_round, total_norm
from store.errors import IntegrityError

MILLION = 1_000_000


def _deviation(claimed: float, factor: float = 1.0) -> float:
    """Standard deviation of noise drawn at `factor` times the claimed multiplier, over the claimed one."""
    (released,) = noised(ClippedSum((np.zeros(MILLION),), bound=0.5), claimed * factor)
    return float(released.std() / (claimed * 0.5))


def test_noise_on_a_million_zero_coordinates_has_the_claimed_deviation() -> None:
    """Sigma within 0.5 % on a zero gradient: a factor-two mistake is impossible."""
    assert _deviation(1.5) == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_the_same_check_rejects_wrong_noise(factor: float) -> None:
    """The test above can fail: noise at two thirds or three halves of the claim is outside its tolerance."""
    assert abs(_deviation(1.5, factor) - 1.0) > 0.005


def test_noise_is_normal() -> None:
    """Kolmogorov-Smirnov and the fourth moment agree with a normal distribution."""
    draws = gaussian(MILLION)
    assert stats.kstest(draws, "norm").pvalue > 1e-4
    assert stats.kurtosis(draws) == pytest.approx(0.0, abs=0.03)


def test_noise_scales_with_the_bound_the_sum_carries() -> None:
    """Noise asks the clipped sum for its bound, so doubling the bound doubles the noise."""
    small, large = (noised(ClippedSum((np.zeros(MILLION),), bound=b), 1.0)[0].std() for b in (1.0, 2.0))
    assert large / small == pytest.approx(2.0, rel=0.01)


def test_a_non_finite_sum_is_refused() -> None:
    """NaN never leaves: the release stops with an integrity error."""
    with pytest.raises(IntegrityError):
        noised(ClippedSum((np.array([1.0, np.nan]),), bound=1.0), 1.0)


def test_poisson_sampling_draws_each_unit_independently_at_the_rate() -> None:
    """Batch sizes follow the binomial law, empty batches included, and no index repeats."""
    sizes = [len(poisson_sample(40, 0.1)) for _ in range(20_000)]
    assert np.mean(sizes) == pytest.approx(4.0, rel=0.02)
    assert np.var(sizes) == pytest.approx(3.6, rel=0.05)
    assert poisson_sample(0, 0.5) == []
    assert sorted(set(poisson_sample(1000, 1.0))) == list(range(1000))


def test_stochastic_rounding_is_unbiased_and_bounded() -> None:
    """Rounding keeps the mean of 0.3 and never leaves the wire's integer range."""
    assert stochastic_round(np.full(200_000, 0.3), -8, 8).mean() == pytest.approx(0.3, abs=0.005)
    assert stochastic_round(np.array([1e9, -1e9]), -8, 8).tolist() == [8, -8]


def test_total_norm_reads_all_arrays_as_one_vector() -> None:
    """The norm of (3, 4) split over two arrays is 5."""
    assert total_norm([np.array([3.0]), np.array([[4.0]])]) == 5.0
