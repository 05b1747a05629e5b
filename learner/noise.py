"""Randomness that privacy rests on: Gaussian noise and Poisson sampling from the operating system's CSPRNG.

A clipped sum carries the bound it was clipped to, and the noise is scaled by that bound: a mismatched pair of clipping
norm and noise cannot be written. Each noise value is the sum of four independent draws divided by two, so that the
gaps between representable doubles in one draw do not reveal the clipped sum (Holohan and Braghin 2021,
arXiv 2107.10138; attack: Jin et al. 2021, arXiv 2112.05307). How long drawing takes is never reported.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.errors import IntegrityError, UsageError

MAX_DEVIATION = 30_000.0  # levels; bounds the table of `discrete_gaussian`
TAIL = 13.0  # deviations; beyond lies less than 1e-37
DRAWS = 4  # per noise value; their sum has twice the standard deviation of one, hence the division by 2


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """A sum of per-unit vectors, each of which had an L2 norm of at most `bound`.

    Adding or removing one unit moves `values`, read as one long vector, by at most `bound`.
    """

    values: tuple[NDArray[np.floating], ...]
    bound: float


def gaussian(count: int) -> NDArray[np.float64]:
    """Return `count` independent standard normal values from the OS CSPRNG (Box-Muller, float64)."""
    half = (count + 1) // 2
    radius = np.sqrt(-2.0 * np.log(_uniform(half)))
    angle = 2.0 * np.pi * _uniform(half)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def noised(clipped: ClippedSum, noise_multiplier: float) -> tuple[NDArray[np.float32], ...]:
    """Add Gaussian noise of standard deviation ``noise_multiplier * clipped.bound`` to every coordinate.

    Raises:
        IntegrityError: a value of the clipped sum is not finite.
    """
    deviation = noise_multiplier * clipped.bound
    released = []
    for value in clipped.values:
        if not np.isfinite(value).all():
            raise IntegrityError("a clipped gradient is not finite", code="non_finite")
        draws = sum(gaussian(value.size) for _ in range(DRAWS)) / (DRAWS**0.5)
        released.append((value + deviation * np.reshape(draws, value.shape)).astype(np.float32))
    return tuple(released)


def poisson_sample(count: int, sampling_rate: float) -> list[int]:
    """Return the indices of 0..count-1 that join this step, each independently with probability `sampling_rate`."""
    return [int(index) for index in np.flatnonzero(_uniform(count) <= sampling_rate)] if count else []


def discrete_gaussian(count: int, deviation: float) -> NDArray[np.int64]:
    """Return `count` independent integers from the discrete Gaussian of this parameter, from the OS CSPRNG.

    Probability of k is proportional to ``exp(-k² / (2 deviation²))`` (Canonne, Kamath and Steinke 2020,
    arXiv 2004.00010). Drawn from a table of whole numbers that add up to 2^62, cut at 13 deviations: see
    `discrete_gaussian_slack` for how far that is from exact.

    Raises:
        UsageError: the deviation is not in [1, 30,000].
    """
    if not 1.0 <= deviation <= MAX_DEVIATION:
        raise UsageError(f"deviation {deviation:g} is not between 1 and {MAX_DEVIATION:g} levels", code="bad_mechanism")
    reach = int(np.ceil(TAIL * deviation))
    masses = np.exp(-np.square(np.arange(-reach, reach + 1) / deviation) / 2)
    table = np.rint(masses / masses.sum() * 2.0**62).astype(np.int64)
    table[reach] += 2**62 - table.sum()
    draws = (np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(2)).astype(np.int64)
    return np.searchsorted(np.cumsum(table), draws, side="right").astype(np.int64) - reach


def discrete_gaussian_slack(count: int, deviation: float) -> float:
    """Bound on the total variation distance of `count` table draws from exact ones; to be added to delta.

    The masses are right to a few units of float64's last place, the table to half a unit of 2^-62 an entry.
    """
    return count * (2.0**-50 + (2 * TAIL * deviation + 3) * 2.0**-62)


def stochastic_round(values: NDArray[np.floating], low: int, high: int) -> NDArray[np.int64]:
    """Round each value up or down at random, without bias, and keep it within [low, high]."""
    floor = np.floor(values)
    up = _uniform(values.size).reshape(values.shape) < values - floor
    rounded: NDArray[np.int64] = np.clip(floor + up, low, high).astype(np.int64)
    return rounded


def total_norm(values: Sequence[NDArray[np.floating]]) -> float:
    """Return the L2 norm of all arrays read as one long vector."""
    return float(np.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in values)))


def _uniform(count: int) -> NDArray[np.float64]:
    """Independent uniform values in (0, 1] with 53 random bits each."""
    bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(11)
    uniform: NDArray[np.float64] = (bits.astype(np.float64) + 1.0) / float(1 << 53)
    return uniform
