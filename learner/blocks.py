"""The frozen base as the quantised blocks of its file, mapped into memory and made dense just before it is multiplied.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314) keeps the frozen weights quantised and dequantises them for every
multiplication. Here the blocks are those of the very GGUF that llama.cpp serves from the same pages: nothing is
quantised a second time, and the numbers are, bit for bit, those of a base held dense. Costs time, changes nothing.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from feedback.gguf_header import Tensor, read_header
from learner.int8 import Int8
from learner.quants import numbers

_AT_ONCE = 1 << 18  # numbers made dense in float32 at a time: about what a processor's cache holds


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A matrix [out, in], or a vector [out, 1], as its file holds it."""

    rows: NDArray[np.uint8]  # [out, bytes of a row]
    kind: GGMLQuantizationType
    wide: int  # in
    order: NDArray[np.int64]  # [out]: which row of the file is which

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return len(self.order), self.wide

    def ordered(self, order: NDArray[np.int64]) -> "Blocks":
        """Return the same rows in another order [out]."""
        return replace(self, order=order)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Return its numbers, rounded to `dtype`."""
        into = torch.empty(self.shape, dtype=dtype)
        self.fill(into)
        return into

    def fill(self, into: torch.Tensor) -> None:
        """Write its numbers `into` [out, in], rounded to that one's type."""
        step = max(1, _AT_ONCE // self.wide)
        for first in range(0, len(self.order), step):
            rows = self.order[first : first + step]
            into[first : first + step] = numbers(self.rows[rows], self.kind)


class BlockLinear(torch.nn.Linear):
    """A frozen linear whose matrix is made from its blocks, or whole numbers, whenever it is multiplied as a dense one.

    Its `weight` has the matrix's shape, and the type that the blocks are rounded to, but is a single NaN: whoever takes
    it for the matrix will see.
    """

    def __init__(self, blocks: Blocks | Int8, bias: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 - torch's Parameter
        out, wide = blocks.shape
        super().__init__(wide, out, bias=False, device="meta", dtype=dtype)
        self.blocks, self.bias = blocks, bias
        self.weight = torch.nn.Parameter(torch.full((), torch.nan, dtype=dtype).expand(out, wide), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x Wᵀ + bias; x [..., in]."""
        return torch.nn.functional.linear(x, matrix(self), self.bias)


def matrix(linear: Any) -> torch.Tensor:  # noqa: ANN401 - a linear, or what PEFT made of it
    """Return the frozen matrix [out, in] of a linear, made for the occasion where it is held as blocks."""
    if isinstance(linear, BlockLinear):
        return linear.blocks.dense(linear.weight.dtype)
    weight: torch.Tensor = linear.weight.detach()
    return weight


def write(linear: Any, into: torch.Tensor) -> None:  # noqa: ANN401
    """Write the frozen matrix of a linear `into` [out, in]."""
    if isinstance(linear, BlockLinear) and linear.weight.dtype == into.dtype:
        linear.blocks.fill(into)
    else:
        into.copy_(matrix(linear))


def mapped(path: Path) -> Mapping[str, Blocks]:
    """Map the GGUF at `path` and return its tensors by name; no weight is read.

    Raises:
        IntegrityError: it is damaged.
        NotImplementedError: a tensor's type cannot be made dense.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = read_header(data)
    whole: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, "r"))
    return {name: _blocks(whole, tensor) for name, tensor in header.tensors.items()}


def _blocks(whole: NDArray[np.uint8], tensor: Tensor) -> Blocks:
    """One tensor's place in the mapped file; a vector is as many rows of one number."""
    wide, *rest = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
    rows = whole[tensor.start : tensor.start + tensor.size].reshape(int(np.prod(rest)), -1)
    numbers(rows[:1].copy(), tensor.kind)  # fails here or never
    return Blocks(rows, tensor.kind, wide, np.arange(len(rows)))
