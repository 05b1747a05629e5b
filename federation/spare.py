"""Move a shared adapter less where old skills are sensitive: Laplace's approximation with Kronecker factors.

How sharply the loss of public pairs rises along the output side of each linear is measured once, where the adapter
changes nothing yet: the mean of G Gᵀ over the gradients G of B, one pair at a time, is the Kronecker factor of the
Fisher information on that side (Ritter, Botev and Barber 2018, arXiv 1805.07810, equation 10). A round's change is then
taken along each eigenvector by ``limit / (eigenvalue + limit)``. Only public data is looked at: it costs no privacy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.base import Base
from learner.encode import encode_all
from learner.lora import LoraSpec, attached, layer_of
from learner.private import MICROBATCH, backward
from store.records import Example

PAIRS = 800  # public ones; 400 leave out directions that pairs nothing was trained on depend on
LIMIT = 0.1  # of the mean eigenvalue over all linears: beyond it a direction counts as sensitive

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Eigenvalues [out] and eigenvectors [out, out] of the output side of each linear that learns."""

    factors: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

    def spare(self, change: Mapping[str, Array]) -> dict[str, Array]:
        """Return a change of B factors [out, rank] with its sensitive directions damped."""
        limit = LIMIT * float(np.mean(np.concatenate([values for values, _ in self.factors.values()])))
        return {path: self._damped(path, matrix, limit) for path, matrix in change.items()}

    def _damped(self, path: str, matrix: Array, limit: float) -> Array:
        values, vectors = self.factors[path]
        damped: Array = (vectors @ ((limit / (values + limit))[:, None] * (vectors.T @ matrix))).astype(np.float32)
        return damped


def measure(base: Base, public: Sequence[Example], spec: LoraSpec, layers: int) -> Sensitivity:
    """Return how sensitive the answers to `public` pairs are along the outputs of the first `layers` layers."""
    items = encode_all(base, public[:PAIRS], max_tokens=512)
    with attached(base, spec) as held:
        held.per_example(torch.float32)
        outputs = {path: b for path, b in held.outputs().items() if layer_of(path) < layers}
        sums = {path: torch.zeros(len(b), len(b), dtype=torch.float64) for path, b in outputs.items()}
        accumulate = backward(held, items)
        for first in range(0, len(items), MICROBATCH):
            accumulate(range(first, min(first + MICROBATCH, len(items))))
            for path, b in outputs.items():
                sums[path] += torch.einsum("nor,npr->op", b.grad_sample, b.grad_sample).double()  # type: ignore[attr-defined]
                b.grad_sample = b.grad = None  # type: ignore[attr-defined]
    return Sensitivity({path: np.linalg.eigh(total.numpy() / len(items)) for path, total in sums.items()})
