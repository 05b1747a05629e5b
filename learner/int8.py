"""Frozen matrices in whole numbers of 8 bits, for processors that multiply those fastest.

As in SwitchBack (Wortsman et al. 2023, arXiv 2304.13013), y = x Wᵀ and the gradient of x are made of rows rounded to
255 steps of their largest number; what learns and its gradients are not rounded. llama.cpp rounds what it multiplies
alike, in pieces of 32, when it serves a quantised file. A row of a result depends on no other row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

WIDTH = 512  # of a base from which on it pays: in a narrower one rounding takes what multiplying gives
COARSE = 0.05  # relative error of what a decoder makes, above which none was tried: docs/decisions/0018
_STEPS = 127  # on either side of zero
_LEAST = 1e-30  # largest number of a row of zeros
_AT_ONCE = 1 << 18  # numbers handled in float32 at a time: about what a processor's cache holds


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """A matrix [out, in]: whole numbers, and what one step is worth in each row, float32 [out, 1]."""

    numbers: torch.Tensor
    scale: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return len(self.numbers), self.numbers.shape[1]

    def __getitem__(self, rows: slice) -> "Int8":
        """The matrix's `rows`, not copied."""
        return Int8(self.numbers[rows], self.scale[rows])

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Return its numbers in `dtype`."""
        into = torch.empty(self.shape, dtype=dtype)
        self.fill(into)
        return into

    def fill(self, into: torch.Tensor) -> None:
        """Write its numbers `into` [out, in], rounded to that one's type."""
        _scale(self.numbers, self.scale, None, into)

    def times(self, x: torch.Tensor, by: torch.Tensor | None = None) -> torch.Tensor:
        """Return (x by) Wᵀ [rows, out], in the type of x [rows, in]; `by` [in]."""
        return _product(rounded(x, by), self.numbers.t(), self.scale.t(), x.dtype)

    def back(self, grad: torch.Tensor, by: torch.Tensor | None = None) -> torch.Tensor:
        """Return (grad W) by [rows, in], in the type of grad [rows, out]; `by` [in]."""
        return _product(rounded(grad, self.scale.t()), self.numbers, by, grad.dtype)


def rounded(x: torch.Tensor, by: torch.Tensor | None = None) -> Int8:
    """Round each row of x [rows, in] to whole steps; where told, of its numbers times those of `by`, one a column."""
    found = Int8(torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x), 1))
    for rows, part in _parts(*x.shape):
        part.copy_(x[rows])
        if by is not None:
            part.mul_(by)
        found.scale[rows] = size = part.abs().amax(1, keepdim=True).clamp_(min=_LEAST).div_(_STEPS)
        found.numbers[rows] = part.mul_(size.reciprocal()).round_()
    return found


def joined(matrices: Sequence[Int8]) -> Int8:
    """Return matrices of the same width above each other."""
    return Int8(torch.cat([one.numbers for one in matrices]), torch.cat([one.scale for one in matrices]))


def coarseness(decoder: torch.nn.Module, exact: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Return by how much rounding changes what a decoder makes of `tokens` [1, length], relative to what `exact` makes.

    Args:
        decoder: one whose matrices are rounded; what they are multiplied with is rounded here.
    """

    def round_given(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        x = given[0]
        return rounded(x.flatten(0, -2)).dense(x.dtype).view_as(x)

    linears = [one for one in decoder.modules() if isinstance(one, torch.nn.Linear)]
    hooks = [one.register_forward_pre_hook(round_given) for one in linears]
    with torch.no_grad():
        found, wanted = (one(input_ids=tokens, use_cache=False).last_hidden_state.float() for one in (decoder, exact))
    for hook in hooks:
        hook.remove()
    return float((found - wanted).norm() / wanted.norm())


def _product(small: Int8, numbers: torch.Tensor, columns: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Return a rounded matrix [rows, k] times whole numbers [k, out], each column times what it is worth."""
    y = torch.empty(len(small.numbers), numbers.shape[1], dtype=dtype)
    _scale(torch._int_mm(small.numbers, numbers), small.scale, columns, y)
    return y


def _scale(whole: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor | None, into: torch.Tensor) -> None:
    """Write whole numbers times what each row and each column is worth."""
    for some, part in _parts(*whole.shape):
        part.copy_(whole[some]).mul_(rows[some])
        into[some] = part if columns is None else part.mul_(columns)


def _parts(rows: int, columns: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some rows at a time, with room for them in float32, which is used again."""
    step = max(1, _AT_ONCE // columns)
    room = torch.empty(min(step, rows), columns)
    for first in range(0, rows, step):
        yield slice(first, first + step), room[: rows - first]
