"""Pure noise goes, a signal stays."""

import numpy as np
import pytest

from federation.shrink import shrink

RNG = np.random.default_rng(5)
DEVIATION = 0.5
NOISE = RNG.normal(0, DEVIATION, (256, 8)).astype(np.float32)
SIGNAL = RNG.normal(0, 3 * DEVIATION, (256, 8)).astype(np.float32)


def test_most_of_a_column_that_is_only_noise_goes() -> None:
    """What is left of pure noise is less than a fifth of its length."""
    assert np.linalg.norm(shrink({"a": NOISE}, DEVIATION)["a"]) < 0.2 * np.linalg.norm(NOISE)


def test_a_shrunk_mean_is_nearer_the_truth_than_the_noisy_one() -> None:
    """For a strong signal in half of the columns the squared error falls; the strong columns keep nine tenths."""
    truth = SIGNAL * (np.arange(8) < 4)
    shrunk = shrink({"a": truth + NOISE}, DEVIATION)["a"]
    assert np.square(shrunk - truth).sum() < 0.7 * np.square(NOISE).sum()
    assert np.linalg.norm(shrunk[:, :4]) == pytest.approx(np.linalg.norm(SIGNAL[:, :4]), rel=0.1)


@pytest.mark.parametrize("matrix", [SIGNAL, np.zeros((4, 2), np.float32)])
def test_without_noise_nothing_changes(matrix: np.ndarray) -> None:
    """A deviation of zero leaves every number as it is, zeros too."""
    assert np.array_equal(shrink({"a": matrix}, 0.0)["a"], matrix)
