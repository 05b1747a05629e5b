"""The public subspace in which a shared adapter learns: ``change of W = (alpha / rank) U M A``, and only M learns.

A and U span the leading singular directions of the frozen weight, found from a public seed by subspace iteration (Halko
et al. 2011, arXiv 0909.4061), as in LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604). They depend on the base model and
the seed alone, so they cost no privacy, and everybody computes the same ones up to rounding. The noise of private
training grows with the number of coordinates: rank x rank for every linear instead of out x rank.

In the adapter's file M disappears: B = U M [out, rank]. Nothing is trained here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from learner.base import Base
from learner.lora import Array, LoraSpec, LoraWeights, public_a

ITERATIONS = 4
Cores = Mapping[str, Array]  # M [rank, rank] of every linear
TOLERANCE = 1e-3  # between two machines' A; rounding stays far below


@dataclass(frozen=True, slots=True)
class Subspace:
    """Orthonormal public factors of every adapted linear."""

    a: Mapping[str, Array]  # [rank, in]
    u: Mapping[str, Array]  # [out, rank]

    def empty(self, alpha: float) -> LoraWeights:
        """Return the adapter that changes nothing."""
        zeros = {path: np.zeros_like(u) for path, u in self.u.items()}
        return LoraWeights(dict(self.a), zeros, alpha)

    def moved(self, weights: LoraWeights, core: Cores) -> LoraWeights:
        """Return `weights` with B changed by U M, for the cores M [rank, rank] in `core`."""
        b = {path: weights.b[path] + self.u[path] @ core[path] for path in weights.b}
        return LoraWeights(weights.a, b, weights.alpha)

    def holds(self, weights: LoraWeights) -> bool:
        """Say whether the A factors of `weights` are the public ones."""
        return set(weights.a) == set(self.a) and all(
            weights.a[path].shape == a.shape and float(np.abs(weights.a[path] - a).max()) <= TOLERANCE
            for path, a in self.a.items()
        )


def subspace(base: Base, rank: int, seed: int) -> Subspace:
    """Return the public factors for `base`; `rank` is at most the smallest side of its linears."""
    a = {
        path: _leading(_weight(base, path), start.astype(np.float64))
        for path, start in public_a(LoraSpec(rank=rank, seed=seed), base.geometry).items()
    }
    return Subspace(a, output_basis(base, a))


def cached_subspace(base: Base) -> Callable[[int, int], Subspace]:
    """Return `subspace` of this base, keeping the last few results."""
    return lru_cache(maxsize=4)(lambda rank, seed: subspace(base, rank, seed))


def output_basis(base: Base, a: Mapping[str, Array]) -> dict[str, Array]:
    """Return U [out, rank] of every linear: an orthonormal basis of ``W Aᵀ``."""
    return {path: _orthonormal(_weight(base, path) @ a[path].T.astype(np.float64)) for path in base.geometry.shapes}


def _leading(weight: NDArray[np.float64], start: NDArray[np.float64]) -> Array:
    """Rows that span the leading right singular directions of `weight` [out, in], from `start` [rank, in]."""
    rows = start
    for _ in range(ITERATIONS):
        rows = _orthonormal(weight.T @ (weight @ rows.T)).T.astype(np.float64)
    return np.ascontiguousarray(rows, dtype=np.float32)


def _orthonormal(columns: NDArray[np.float64]) -> Array:
    """Orthonormalise columns by QR, with signs fixed so that every library agrees."""
    q, r = np.linalg.qr(columns)
    return np.ascontiguousarray(q * np.where(np.diag(r) < 0, -1.0, 1.0), dtype=np.float32)


def _weight(base: Base, path: str) -> NDArray[np.float64]:
    """The frozen weight [out, in]."""
    weight: NDArray[np.float64] = base.model.get_submodule(path).weight.detach().numpy().astype(np.float64)
    return weight
