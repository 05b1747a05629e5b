"""The shared adapter inside the federation room: public factors A and U, cores from the rounds.

Glue between releases and `learner`; nothing is trained or judged here.
"""

from federation.release import Release
from federation.update import Layout
from learner.base import Geometry
from learner.export import from_gguf
from learner.lora import LoraWeights
from learner.noise import total_norm
from learner.subspace import Subspace
from store.errors import IntegrityError, ReleaseRejected


def layout(geometry: Geometry, rank: int) -> Layout:
    """Return the order in which the cores travel: by name."""
    return tuple((path, rank) for path in sorted(geometry.shapes))


def norm(weights: LoraWeights) -> float:
    """Return the L2 norm of all B factors together."""
    return total_norm(list(weights.b.values()))


def open_release(release: Release, geometry: Geometry, space: Subspace, *, max_norm: float) -> LoraWeights:
    """Parse the adapter of a verified release and check what its manifest promises.

    Args:
        space: the public factors as this machine computes them.

    Raises:
        ReleaseRejected: code ``content`` (damaged, foreign shapes, not finite), ``seed`` (A is not the public one)
            or ``norm`` (B is larger than the manifest or this device allows).
    """
    manifest = release.manifest
    try:
        weights = from_gguf(release.adapter, geometry, manifest.base)
    except IntegrityError as error:
        raise ReleaseRejected(error.message, code="content") from error
    if weights.alpha != manifest.mechanism.alpha or not space.holds(weights):
        raise ReleaseRejected("the adapter's A factors are not the public ones", code="seed")
    if norm(weights) > min(max_norm, manifest.max_norm):
        raise ReleaseRejected("the adapter is larger than allowed", code="norm")
    return weights
