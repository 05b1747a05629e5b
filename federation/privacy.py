"""Device-level privacy: the unit is everything one device ever learned, and the server sees sums only.

The distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke 2021, arXiv 2102.06387). A device clips its whole
change, rounds it to integers, adds its share of discrete Gaussian noise and hides the result in a sum modulo 2^bits
that nobody can open below a quorum. The shares together are the noise that is claimed, counting only the devices that
are not in league with the server.

Built here: the mechanism, its accounting and the opening of a sum. Not built yet: the secure sum itself. Without it a
share is far too little noise, so `send` refuses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Never

import numpy as np
from numpy.typing import NDArray

from learner.accountant import epsilon_concentrated
from learner.noise import discrete_gaussian, discrete_gaussian_slack, stochastic_round, total_norm
from store.errors import NotEligible, UsageError

Levels = NDArray[np.int64]
LEAST_DEVIATION = 2.0  # levels of one share; below it the sum of discrete Gaussians is no longer close to one


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One round of the mechanism; every field is public.

    Raises:
        UsageError: the fields contradict each other.
    """

    bound: float  # L2 norm that a device's whole change is clipped to
    quantum: float  # value of one level
    count: int  # coordinates
    noise_multiplier: float  # deviation of the sum's noise over its sensitivity, from honest devices alone
    quorum: int  # fewest devices whose sum may be opened
    colluding: int = 0  # of those, how many may tell the server their noise
    bits: int = 32  # the sum is taken modulo 2^bits
    unit: Literal["device"] = "device"

    def __post_init__(self) -> None:
        """Refuse what would not be private or could not be opened."""
        if self.quorum - self.colluding < 1:
            raise UsageError("no honest device would be left in the sum", code="bad_mechanism")
        if self.share < LEAST_DEVIATION:
            raise UsageError("the quantum is too coarse for so small a share of noise", code="bad_mechanism")
        if self.quorum * (self.sensitivity + 13 * self.share) >= 2 ** (self.bits - 1):
            raise UsageError("the sum would not fit into its bits", code="bad_mechanism")

    @property
    def sensitivity(self) -> float:
        """Most that one device can move the sum, in levels; rounding moves a coordinate by less than one."""
        return self.bound / self.quantum + math.sqrt(self.count)

    @property
    def share(self) -> float:
        """Deviation of one device's noise, in levels."""
        return self.noise_multiplier * self.sensitivity / math.sqrt(self.quorum - self.colluding)


@dataclass(frozen=True, slots=True)
class BoundedLevels:
    """A device's rounded change; it carries the L2 bound it keeps, in levels, and noise asks it."""

    values: Levels
    bound: float


@dataclass(frozen=True, slots=True)
class Share:
    """What one device would put into the secure sum: uniform-looking integers modulo 2^bits, of fixed length."""

    spec: DeviceSpec
    residues: NDArray[np.uint64]


def bounded(change: NDArray[np.floating], spec: DeviceSpec) -> BoundedLevels:
    """Clip a whole change [count] to `spec.bound` and round it to levels without bias.

    | change | result |
    |---|---|
    | 0, or no correction at all | levels 0 |
    | NaN or infinite anywhere | levels 0: the device still takes part, and nobody learns why |
    """
    if change.shape != (spec.count,):
        raise UsageError("the change does not fit the round's layout", code="layout")
    norm = total_norm([change])
    scale = min(1.0, spec.bound / norm) if norm > 0 else 0.0
    levels = change.astype(np.float64) * (scale / spec.quantum) if math.isfinite(norm) else np.zeros(spec.count)
    top = math.ceil(spec.bound / spec.quantum) + 1
    return BoundedLevels(stochastic_round(levels, -top, top), spec.sensitivity)


def share(levels: BoundedLevels, spec: DeviceSpec) -> Share:
    """Add this device's share of the noise, scaled by the bound that `levels` carries, modulo 2^bits."""
    deviation = spec.noise_multiplier * levels.bound / math.sqrt(spec.quorum - spec.colluding)
    noised = levels.values + discrete_gaussian(spec.count, deviation)
    return Share(spec, np.mod(noised, 2**spec.bits).astype(np.uint64))


def opened(total: NDArray[np.uint64], spec: DeviceSpec, devices: int) -> NDArray[np.float64]:
    """Return the mean change of `devices` devices from the sum of their residues.

    Raises:
        NotEligible: fewer devices than the quorum; their sum holds too little noise.
    """
    if devices < spec.quorum:
        raise NotEligible(f"{devices} devices are fewer than the quorum of {spec.quorum}", code="quorum")
    whole = np.mod(total, np.uint64(2**spec.bits)).astype(np.int64)
    signed = np.where(whole >= 2 ** (spec.bits - 1), whole - 2**spec.bits, whole)
    mean: NDArray[np.float64] = signed * (spec.quantum / devices)
    return mean


def send(_share: Share) -> Never:
    """Refuse: there is no secure sum to send to.

    Raises:
        NotEligible: always, in this version.
    """
    raise NotEligible(
        "Device-level sharing needs a secure sum, and this version has none: nothing was sent.",
        hint="Share per correction, where the noise is added on this device.",
        code="no_secure_sum",
    )


def epsilon(specs: Sequence[DeviceSpec], delta: float) -> float:
    """Return epsilon per device of all rounds composed, at `delta`; adjacency is add or remove one device.

    Theorem 1 of arXiv 2102.06387: a round has concentrated privacy with
    ``rho = (1 / z² + 2 tau count) / 2``, where tau bounds how far the sum of shares is from one discrete Gaussian.
    Every device takes part in every round: no amplification by sampling is claimed.

    Raises:
        UsageError: delta is smaller than what the table of the noise may be off.
    """
    if not specs:
        return 0.0
    rho = sum((spec.noise_multiplier**-2 + 2 * _closeness(spec) * spec.count) / 2 for spec in specs)
    slack = sum(spec.quorum * discrete_gaussian_slack(spec.count, spec.share) for spec in specs)
    if slack >= delta / 10:
        raise UsageError(f"delta {delta:g} is too small for so many coordinates", code="bad_mechanism")
    return epsilon_concentrated(rho, 0.9 * delta)


def cost(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return epsilon per device of `rounds` rounds at one noise multiplier, where shares are not too coarse."""
    return epsilon_concentrated(rounds / (2 * noise_multiplier**2), 0.9 * delta)


def calibrate(target: float, delta: float, rounds: int) -> float:
    """Return the least noise multiplier (to 0.1 %) with which `rounds` rounds stay within `target` per device.

    Raises:
        UsageError: no noise multiplier up to 10,000 is enough.
    """
    low, high = 0.0, 1e4
    if cost(high, rounds, delta) > target:
        raise UsageError(f"no amount of noise fits epsilon {target:g} at delta {delta:g}", code="no_budget")
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle, rounds, delta) <= target else (middle, high)
    return high


def _closeness(spec: DeviceSpec) -> float:
    """Tau of the theorem: 10 times the sum over k below the quorum of exp(-2 pi² share² k / (k + 1))."""
    return 10 * sum(math.exp(-2 * math.pi**2 * spec.share**2 * k / (k + 1)) for k in range(1, spec.quorum))
