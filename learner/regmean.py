"""Keeping an adapter to what its owner asks: what it would change about the base's own answers is taken back.

The owner's requests reach a linear as inputs with second moment H = mean x xᵀ, the base's own skills with C. Of all
changes W' the one that stays near the learned D where H is, and near nothing where C is,

    min  tr((W' - D) H (W' - D)ᵀ) + r tr(W' C W'ᵀ),   is   W' = D H (H + r C)⁻¹,

regression mean merging (RegMean, Jin et al. 2023, arXiv 2212.09849) of the adapted linear and the plain one. With
D = B A it falls to A alone, so the rank stays. No training, no gradient: one pass over some hundred examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.base import Base, hidden_states
from learner.encode import Encoded, collate, encode_all
from learner.lora import LoraWeights
from store.records import Example

WIDEST = 1024  # inputs of a linear; of a wider one only the diagonal is kept, to save memory
RIDGE = 1e-3  # of the mean of C's diagonal, added to it
_BATCH = 32  # examples per pass

Moment = NDArray[np.float32]  # [in, in], or its diagonal [in]


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of the inputs of every adapted linear over some examples' tokens; linears may share one."""

    of: Mapping[str, Moment]  # module path -> moment


def moments(base: Base, examples: Sequence[Example], *, max_tokens: int) -> Moments | None:
    """Go through the plain base once; None when no example fits into `max_tokens`."""
    items = encode_all(base, examples, max_tokens=max_tokens)
    if not items:
        return None
    watch = _Watch(base)
    items = sorted(items, key=lambda item: len(item.tokens))
    with torch.no_grad(), watch:
        for first in range(0, len(items), _BATCH):
            watch.through(items[first : first + _BATCH])
    tokens = sum(len(item.tokens) for item in items)
    sums = {first: (moment / tokens).numpy() for first, moment in watch.sums.items()}
    return Moments({path: sums[watch.first[path]] for path in base.geometry.shapes})


def restrained(weights: LoraWeights, own: Moments, kept: Moments | None, restraint: float) -> LoraWeights:
    """Return the adapter with A replaced by A H (H + restraint * C)⁻¹.

    Args:
        own: H, of the owner's corrections.
        kept: C, of the base's own skills; without any, all inputs are held alike.
    """
    a = {}
    for path, matrix in weights.a.items():
        h = own.of[path]
        a[path] = _damped(matrix, h, _even(h) if kept is None else kept.of[path], restraint)
    return LoraWeights(a, weights.b, weights.alpha)


def _damped(a: NDArray[np.float32], h: Moment, c: Moment, restraint: float) -> NDArray[np.float32]:
    """A H (H + restraint * C)⁻¹ for one linear, A [rank, in]."""
    if h.ndim == 1:
        factor: NDArray[np.float32] = h / (h + restraint * c + RIDGE * c.mean())
        return (a * factor).astype(np.float32)
    whole = (h + restraint * c + RIDGE * np.diag(c).mean() * np.eye(len(c))).astype(np.float64)
    return np.linalg.solve(whole, h @ a.T).T.astype(np.float32)


def _even(h: Moment) -> Moment:
    """A moment of the same size that prefers no direction."""
    even: Moment = np.full_like(h, h.mean()) if h.ndim == 1 else np.eye(len(h), dtype=h.dtype) * np.diag(h).mean()
    return even


class _Watch:
    """Adds up what reaches the linears of a base while it is entered; one sum for those that read the same tensor."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._handles: list[Any] = []
        self._mask = torch.zeros(0)
        self._last: tuple[torch.Tensor | None, str] = (None, "")
        self.first: dict[str, str] = {}  # path -> path of the first linear with the same input
        self.sums: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        for path in self._base.geometry.shapes:
            module = self._base.model.get_submodule(path)
            self._handles.append(module.register_forward_pre_hook(self._hook(path)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def through(self, items: Sequence[Encoded]) -> None:
        """One pass over some examples; pads are not counted."""
        tokens = collate(items).tokens
        lengths = torch.tensor([len(item.tokens) for item in items])
        self._mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        hidden_states(self._base, tokens)

    def _hook(self, path: str) -> Any:  # noqa: ANN401 - torch's type of a hook
        def add(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0]
            if self._last[0] is not x:
                self._last = (x, path)
            self.first[path] = self._last[1]
            if self._last[1] == path:
                rows = x[self._mask].float()
                moment = rows.t() @ rows if rows.shape[1] <= WIDEST else rows.square().sum(0)
                self.sums[path] = self.sums[path] + moment if path in self.sums else moment

        return add
