"""The shared adapter inside the federation room: A from a public seed, B from the rounds.

Glue between releases and `learner`; nothing is trained or judged here.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federation.release import Release
from federation.spec import RoundSpec
from federation.update import Layout
from learner.base import Geometry
from learner.export import from_gguf
from learner.lora import LoraSpec, LoraWeights, fresh, layer_of, public_a
from learner.noise import total_norm
from store.errors import IntegrityError, ReleaseRejected


def layout(geometry: Geometry, spec: RoundSpec) -> Layout:
    """Return the order in which the B factors that learn travel: by name."""
    learning = sorted(path for path in geometry.shapes if layer_of(path) < spec.layers)
    return tuple((path, geometry.shapes[path][0], spec.rank) for path in learning)


def empty(spec: RoundSpec, geometry: Geometry) -> LoraWeights:
    """Return the adapter of round 0: public A, B = 0."""
    return fresh(_lora_spec(spec), geometry)


def moved(weights: LoraWeights, change: Mapping[str, NDArray[np.float32]], share: float = 1.0) -> LoraWeights:
    """Return `weights` with `share` of `change` added to its B factors; A and the other B stay."""
    return LoraWeights(
        weights.a,
        {path: b + np.float32(share) * change[path] if path in change else b for path, b in weights.b.items()},
        weights.alpha,
    )


def norm(weights: LoraWeights) -> float:
    """Return the L2 norm of all B factors together."""
    return total_norm(list(weights.b.values()))


def open_release(release: Release, geometry: Geometry, *, max_norm: float) -> LoraWeights:
    """Parse the adapter of a verified release and check what its manifest promises.

    Raises:
        ReleaseRejected: code ``content`` (damaged, foreign shapes, not finite), ``seed`` (A is not the public one)
            or ``norm`` (B is larger than the manifest or this device allows).
    """
    manifest = release.manifest
    try:
        weights = from_gguf(release.adapter, geometry, manifest.base)
    except IntegrityError as error:
        raise ReleaseRejected(error.message, code="content") from error
    wanted = public_a(_lora_spec(manifest.mechanism), geometry)
    if (weights.rank, weights.alpha) != (manifest.mechanism.rank, manifest.mechanism.alpha) or any(
        not np.array_equal(weights.a[path], wanted[path]) for path in wanted
    ):
        raise ReleaseRejected("the adapter's A factors are not the public ones", code="seed")
    if norm(weights) > min(max_norm, manifest.max_norm):
        raise ReleaseRejected("the adapter is larger than allowed", code="norm")
    return weights


def _lora_spec(spec: RoundSpec) -> LoraSpec:
    """The learner's view of the spec's public adapter."""
    return LoraSpec(rank=spec.rank, alpha=spec.alpha, seed=spec.seed_a, freeze_a=True)
