"""A simulated fleet on real requests: per-device private changes, their mean with noise, and a newcomer's errors.

The clipped changes come from the product's own training (`learner.private.train_private`, one step a round, so that
noise added to the mean has exactly the distribution of noise added by each device). Noise comes from the product's
generator. Beyond the devices there is data for, the mean of the real ones is used with the noise of the larger fleet.
The server does what the product's does: it shrinks what is only noise, mends with public pairs, and releases the
largest share that keeps old skills.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from federation.adapter import moved
from federation.mend import RECIPE
from federation.server import SHARES
from federation.shrink import shrink
from learner.base import Base, head, hidden_states
from learner.encode import Encoded, collate
from learner.lora import LoraSpec, LoraWeights, attached, blend, fresh
from learner.noise import gaussian
from learner.private import PrivateSpec, train_private
from learner.train import train
from store.records import Example

SILENT = 1e-9  # noise multiplier of a run whose noise is added later
TOLERANCE = 1.0  # points the public probe set may lose; one answer of 120

Change = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fleet:
    """Who takes part, who does not, and what is public."""

    base: Base
    devices: Sequence[Sequence[Example]]
    newcomers: Sequence[Encoded]  # requests of people who never took part
    public: Sequence[Example]  # the operator mends with these
    probe: Sequence[Encoded]  # and judges with these
    spec: PrivateSpec


def exact(base: Base, items: Sequence[Encoded], weights: LoraWeights | None) -> float:
    """Share of `items` answered exactly by greedy decoding, in per cent.

    A greedy answer is the wanted one exactly when each wanted token is the likeliest after those before it.
    """
    if weights is None:
        return _exact(base, items)
    with attached(base, LoraSpec(weights.rank, weights.alpha), start=weights):
        return _exact(base, items)


def _exact(base: Base, items: Sequence[Encoded]) -> float:
    right = 0
    with torch.no_grad():
        for first in range(0, len(items), 64):
            batch = collate(items[first : first + 64])
            hidden = hidden_states(base, batch.tokens).flatten(0, 1)[batch.at]
            hit = head(base, hidden).argmax(-1) == batch.targets
            wrong = torch.zeros(len(items[first : first + 64])).index_add(0, batch.owner, (~hit).float())
            right += int((wrong == 0).sum())
    return 100.0 * right / len(items)


def start(fleet: Fleet) -> LoraWeights:
    """The adapter of round 0."""
    return fresh(LoraSpec(fleet.spec.rank, fleet.spec.alpha, fleet.spec.seed_a), fleet.base.geometry)


def changes(fleet: Fleet, weights: LoraWeights, devices: int, steps: int = 1) -> list[Change]:
    """The clipped change of each of the first `devices` devices, without noise."""
    spec = replace(fleet.spec, noise_multiplier=SILENT, steps=steps)
    return [dict(train_private(fleet.base, data, spec, start=weights).b) for data in fleet.devices[:devices]]


def mean(found: Sequence[Change]) -> Change:
    """The uniform mean."""
    return {path: np.mean([one[path] for one in found], axis=0) for path in found[0]}


def scaled(change: Change, factor: float) -> Change:
    """The change, longer or shorter."""
    return {path: np.float32(factor) * part for path, part in change.items()}


def clipped(found: Sequence[Change], bound: float) -> list[Change]:
    """Each whole change scaled down to an L2 norm of at most `bound`: one device is the unit."""
    norms = [np.sqrt(sum(float(np.square(part).sum()) for part in one.values())) for one in found]
    return [
        {path: part * min(1.0, bound / max(norm, 1e-30)) for path, part in one.items()}
        for one, norm in zip(found, norms, strict=True)
    ]


def noisy(change: Change, deviation: float) -> Change:
    """Add Gaussian noise of this standard deviation to every coordinate."""
    return {
        path: (part + deviation * gaussian(part.size).reshape(part.shape)).astype(np.float32)
        for path, part in change.items()
    }


def released(fleet: Fleet, weights: LoraWeights, change: Change, deviation: float, floor: float) -> LoraWeights:
    """The next release: the largest share of the shrunk, mended mean that keeps the probe set, or no change."""
    whole = train(fleet.base, fleet.public, (), RECIPE, start=moved(weights, shrink(change, deviation)))
    for share in SHARES:
        tried = blend(weights, whole, share)
        if exact(fleet.base, fleet.probe, tried) >= floor - TOLERANCE:
            return tried
    return weights


def ratio(change: Change, deviation: float) -> float:
    """Signal over noise: norm of the mean change over the expected norm of its noise."""
    size = sum(part.size for part in change.values())
    norm = float(np.sqrt(sum(float(np.square(part).sum()) for part in change.values())))
    return norm / (deviation * size**0.5) if deviation else float("inf")
