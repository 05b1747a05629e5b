"""What a round asks for and what a device allows; every field is public and none is derived from private data.

`RoundSpec` comes from the operator, `Limits` is fixed on the device. A device refuses a spec outside its limits
whoever signed it. Which examples are used is the device's business, not said here.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from store.errors import UsageError
from store.records import canonical, digest

NOISE_LEVELS = 8  # quantisation levels per standard deviation of the noise: rounding adds 0.4 % to its variance at most
HEADROOM = 1.25  # the norm bound over the expected norm of pure noise
COUNTS = ("rank", "steps", "layers", "max_tokens")
WHOLE = (*COUNTS, "seed_a", "bits")
YEAR = 365.25 * 86400.0  # seconds
MONTH = YEAR / 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSpec:
    """The mechanism of one round: DP-SGD over the B factors, on the device, one correction as the unit."""

    unit: Literal["correction"] = "correction"
    clipping_norm: float  # L2 bound of one example's gradient
    noise_multiplier: float  # noise standard deviation per step, in clipping norms
    sampling_rate: float  # Poisson, per example and step
    steps: int
    divisor: float  # public batch size the noisy sum is divided by
    learning_rate: float
    rank: int
    alpha: float
    seed_a: int  # the A factors come from this seed and are never trained
    layers: int  # only the B factors of this many first layers learn and travel
    max_tokens: int = 512  # longer examples are left out
    bits: Literal[8, 16] = 8
    quantum: float  # value of one level on the wire
    max_norm: float  # L2 bound of a whole update

    @property
    def id(self) -> str:
        """Tagged hash of the canonical form; travels in every update."""
        return digest(canonical(asdict(self)))

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise in one coordinate of one device's update."""
        return _deviation(self.noise_multiplier, self.clipping_norm, self.steps, self.divisor, self.learning_rate)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "RoundSpec":
        """Rebuild a spec from JSON.

        Raises:
            UsageError: fields are missing, unknown, of a wrong type or out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(value) != names:
            raise UsageError("a round's spec has missing or unknown fields", code="spec")
        whole = {name: value[name] for name in WHOLE}
        real = {name: value[name] for name in names - set(whole) - {"unit"}}
        if not all(type(number) is int for number in whole.values()) or not all(
            type(number) in (int, float) and math.isfinite(number) and number > 0 for number in real.values()
        ):
            raise UsageError("a round's spec has a field of a wrong type or range", code="spec")
        if value["unit"] != "correction" or value["bits"] not in (8, 16) or any(whole[name] < 1 for name in COUNTS):
            raise UsageError("a round's spec asks for something unknown", code="spec")
        return cls(**value)


def wire_scale(
    *, noise_multiplier: float, clipping_norm: float, steps: int, divisor: float, learning_rate: float, count: int
) -> tuple[float, float]:
    """Return (quantum, max_norm) for updates of `count` coordinates, from public figures alone.

    The signal of honest data stays far below that of the noise's norm; a device scales its update down to `max_norm`
    anyway, which costs no privacy (post-processing).
    """
    deviation = _deviation(noise_multiplier, clipping_norm, steps, divisor, learning_rate)
    return deviation / NOISE_LEVELS, HEADROOM * deviation * math.sqrt(count) + learning_rate * clipping_norm * steps


def _deviation(
    noise_multiplier: float, clipping_norm: float, steps: int, divisor: float, learning_rate: float
) -> float:
    """Standard deviation of the noise in one coordinate of an update.

    Plain SGD sums `steps` independent noises of standard deviation ``lr * sigma * C / divisor``.
    """
    return learning_rate * noise_multiplier * clipping_norm / divisor * math.sqrt(steps)


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that one unit may spend within any stretch of this length."""

    period: str
    seconds: float
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a device allows, whatever a server asks."""

    epsilon_cap: float = 8.0  # per correction over any year
    epsilon_cap_month: float | None = None  # per correction over any month; None: the year's alone
    epsilon_cap_life: float | None = None  # per correction, ever
    device_epsilon_cap: float = 8.0  # per device over any year
    delta: float = 1e-6
    uses_per_correction: int = 4
    min_noise_multiplier: float = 0.5
    max_clipping_norm: float = 10.0
    max_sampling_rate: float = 1.0
    max_steps: int = 1000
    max_rank: int = 64
    max_tokens: int = 4096
    max_adapter_norm: float = 1000.0  # L2 norm of all B factors of a release

    def caps(self, unit: str) -> tuple["Cap", ...]:
        """Return every cap on one unit, the longest period last."""
        if unit == "device":
            return (Cap("year", YEAR, self.device_epsilon_cap),)
        found = (
            ("month", MONTH, self.epsilon_cap_month),
            ("year", YEAR, self.epsilon_cap),
            ("life", math.inf, self.epsilon_cap_life),
        )
        return tuple(Cap(name, seconds, epsilon) for name, seconds, epsilon in found if epsilon is not None)

    def refuses(self, spec: RoundSpec) -> str:
        """Return the first field of `spec` that is outside the limits, or an empty string."""
        checks = {
            "noise_multiplier": spec.noise_multiplier >= self.min_noise_multiplier,
            "clipping_norm": spec.clipping_norm <= self.max_clipping_norm,
            "sampling_rate": spec.sampling_rate <= self.max_sampling_rate,
            "steps": spec.steps <= self.max_steps,
            "rank": spec.rank <= self.max_rank,
            "max_tokens": spec.max_tokens <= self.max_tokens,
        }
        return next((name for name, allowed in checks.items() if not allowed), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a round starts and when it ends; seconds."""

    quorum: int = 3  # fewest updates a release may rest on
    expected: int = 3  # devices worth waiting for before the round starts
    most: int = 10_000  # devices asked in one round, drawn from those online
    gather: float = 60.0  # longest wait for them
    deadline: float = 600.0  # longest wait for their replies
    poll: float = 0.5
