"""A simulated fleet on real requests: per-device private changes, their mean with noise, and a newcomer's errors.

The clipped changes come from the product's own training (`learner.private.train_private`, one step a round, so that
noise added to the mean has exactly the distribution of noise added by each device). Noise comes from the product's
generator. Beyond the devices there is data for, the mean of the real ones is used with the noise of the larger fleet.
The server does what the product's does, with the product's own parts: it shrinks what is only noise, damps what old
skills are sensitive to, mends with public pairs, and releases the largest share that keeps old skills.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from federation.adapter import moved
from federation.mend import Mender
from federation.server import SHARES
from federation.shrink import shrink
from learner.base import Base, head, hidden_states
from learner.encode import Encoded, collate
from learner.lora import LoraSpec, LoraWeights, attached, blend, fresh
from learner.noise import gaussian
from learner.private import PrivateSpec, train_private
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
    mender: Mender  # with public pairs
    probe: Sequence[Encoded]  # other public pairs judge a release
    spec: PrivateSpec


class Score(NamedTuple):
    """How well requests are answered."""

    exact: float  # per cent answered exactly by greedy decoding
    loss: float  # mean over the requests, nats a token of the wanted answer


def score(base: Base, items: Sequence[Encoded], weights: LoraWeights | None) -> Score:
    """Score the answers to `items`.

    A greedy answer is the wanted one exactly when each wanted token is the likeliest after those before it.
    """
    if weights is None:
        return _score(base, items)
    with attached(base, LoraSpec(weights.rank, weights.alpha), start=weights):
        return _score(base, items)


def _score(base: Base, items: Sequence[Encoded]) -> Score:
    right, loss = 0, 0.0
    with torch.no_grad():
        for first in range(0, len(items), 64):
            batch = collate(items[first : first + 64])
            hidden = hidden_states(base, batch.tokens).flatten(0, 1)[batch.at]
            logits, nothing = head(base, hidden), torch.zeros(len(items[first : first + 64]))
            wrong = nothing.index_add(0, batch.owner, (logits.argmax(-1) != batch.targets).float())
            nats = nothing.index_add(0, batch.owner, cross_entropy(logits, batch.targets, reduction="none"))
            right += int((wrong == 0).sum())
            loss += float((nats / nothing.index_add(0, batch.owner, torch.ones(len(batch.owner)))).sum())
    return Score(100.0 * right / len(items), loss / len(items))


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
    """The next release: the largest share of the shrunk, damped, mended mean that keeps the probe set, or no change."""
    whole = fleet.mender.mend(moved(weights, fleet.mender.spare(shrink(change, deviation))))
    for share in SHARES:
        tried = blend(weights, whole, share)
        if score(fleet.base, fleet.probe, tried).exact >= floor - TOLERANCE:
            return tried
    return weights


def ratio(change: Change, deviation: float) -> float:
    """Signal over noise: norm of the mean change over the expected norm of its noise."""
    size = sum(part.size for part in change.values())
    norm = float(np.sqrt(sum(float(np.square(part).sum()) for part in change.values())))
    return norm / (deviation * size**0.5) if deviation else float("inf")
