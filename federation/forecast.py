"""What sharing would bring, before anyone turns it on: which noise, what signal is left, how many devices it takes.

The yardstick is signal over noise: the norm of the mean change of N devices over the expected norm of its noise, all
rounds together. Clipped gradients agree only in part: the norm of their mean is about `ALIGNMENT` of the bound.
With sampling rate q, S steps in all, n corrections a device, d coordinates and noise multiplier s,

    correction:  q n a sqrt(S N) / (s sqrt(d))        device:  N a sqrt(R) / (s sqrt(d))

so a fleet must grow with the square of the noise in the first mode, and in proportion to it in the second. `ALIGNMENT`
and `USEFUL` are rules of thumb: in docs/decisions/0005, at a ratio of about 3 by this formula, a newcomer gained 25
points.
"""

import math
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.claim import Unit
from federation.privacy import calibrate as calibrate_device
from federation.privacy import cost as device_cost
from feedback.gguf_header import read_header
from learner.accountant import MechanismRun, calibrate
from learner.accountant import epsilon as total_epsilon
from store.errors import UsageError

ALIGNMENT = 0.3
USEFUL = 1.0
_LINEAR = re.compile(r"blk\.(\d+)\.(?:attn_(?:q|k|v|qkv|output)|ffn_(?:gate|up|down))\.weight$")
MOST = 2**40  # devices; beyond, "never" is the honest word


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked; every field is public."""

    unit: Unit
    devices: int
    rounds: int
    steps: int  # per round, and 1 where the unit is a device
    sampling_rate: float
    corrections: int  # a device has, about
    coordinates: int
    delta: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The answer."""

    noise_multiplier: float
    epsilon_round: float
    epsilon_total: float
    signal: float  # over noise, all rounds together
    devices_needed: int | None  # for a signal of USEFUL; None: more than there can be

    @property
    def useful(self) -> bool:
        """Whether this fleet would be worth it."""
        return self.signal >= USEFUL


def forecast(
    question: Question, *, epsilon: float | None, noise: float | None, spent: Sequence[MechanismRun]
) -> Forecast:
    """Return what `question` comes to, for a total of `epsilon` or for a given `noise` multiplier.

    Args:
        spent: what the ledger holds already of this unit; it counts towards the total.

    Raises:
        UsageError: both or neither given, or no amount of noise is enough.
    """
    if (epsilon is None) == (noise is None):
        raise UsageError("Give either an epsilon or a noise multiplier.")
    sigma = noise if noise is not None else _noise(question, epsilon or 0.0, spent)
    return Forecast(
        sigma, _cost(question, sigma, 1, ()), _cost(question, sigma, question.rounds, spent), signal(question, sigma),
        devices_needed(question, sigma),
    )  # fmt: skip


def signal(question: Question, noise: float, devices: int | None = None) -> float:
    """Signal over noise with `devices` devices (None: the question's)."""
    count = question.devices if devices is None else devices
    if question.unit == "device":
        return count * ALIGNMENT * math.sqrt(question.rounds) / (noise * math.sqrt(question.coordinates))
    each = question.sampling_rate * question.corrections * ALIGNMENT * math.sqrt(question.steps * question.rounds)
    return each * math.sqrt(count) / (noise * math.sqrt(question.coordinates))


def devices_needed(question: Question, noise: float) -> int | None:
    """Fewest devices whose signal is USEFUL."""
    one = signal(question, noise, 1)
    if one <= 0:
        return None
    ratio = USEFUL / one
    count = math.ceil(ratio if question.unit == "device" else ratio**2)
    return max(1, count) if count <= MOST else None


def _noise(question: Question, epsilon: float, spent: Sequence[MechanismRun]) -> float:
    """The least noise multiplier within `epsilon` in all."""
    if question.unit == "device":
        return calibrate_device(epsilon, question.delta, question.rounds)
    steps = question.steps * question.rounds
    return calibrate(epsilon, question.delta, sampling_rate=question.sampling_rate, steps=steps, spent=spent)


def _cost(question: Question, noise: float, rounds: int, spent: Sequence[MechanismRun]) -> float:
    """Epsilon of `rounds` rounds on top of `spent`."""
    if question.unit == "device":
        return device_cost(noise, rounds, question.delta)
    run = MechanismRun(noise, question.sampling_rate, question.steps * rounds)
    return total_epsilon([*spent, run], question.delta)


def coordinates(model: Path, rank: int, layers: int) -> int:
    """Return how many numbers an update over the first `layers` layers of a GGUF has; reads its header alone."""
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        shapes = {name: tensor.shape for name, tensor in read_header(data).tensors.items()}
    found = ((_LINEAR.match(name), shape) for name, shape in shapes.items())
    return sum(rank * shape[1] for match, shape in found if match and int(match[1]) < layers)
