"""The numbers in a GGUF's blocks, exactly as `gguf.quants` has them; the common types several times as fast, by torch.

What a block's bytes mean is ggml's (https://github.com/ggml-org/ggml, ggml-common.h). Every product and difference is
rounded to float32 in the same order as there, so the results are equal bit for bit; a test says so for every type.
"""

from collections.abc import Callable

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Kind
from numpy.typing import NDArray


def numbers(rows: NDArray[np.uint8], kind: Kind) -> torch.Tensor:
    """Return the numbers [n, in] of rows [n, bytes]: float32, or the shorter float that the file holds.

    Raises:
        NotImplementedError: neither here nor in gguf.
    """
    if kind in _PLAIN:
        return torch.from_numpy(rows).view(_PLAIN[kind])
    if kind not in _FAST:
        return torch.from_numpy(gguf.quants.dequantize(rows, kind))
    blocks = torch.from_numpy(rows).view(-1, GGML_QUANT_SIZES[kind][1])
    return _FAST[kind](blocks).view(len(rows), -1)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """A scale, 32 whole numbers."""
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks[:, :2]))


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """A scale, 32 numbers of 4 bits around 8."""
    return _nibbles(blocks[:, 2:].view(-1, 1, 16)).view(-1, 32).float().sub_(8).mul_(_half(blocks[:, :2]))


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    """Scales and minima, 256 numbers of 4 bits."""
    scale, least = _scales(blocks)
    return _nibbles(blocks[:, 16:].view(-1, 4, 32)).view(-1, 8, 32).float().mul_(scale).sub_(least)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    """Scales and minima, 256 fifth bits, 256 times four bits."""
    scale, least = _scales(blocks)
    fifth = torch.stack([(blocks[:, 16:48] >> bit) & 1 for bit in range(8)], 1)
    low = _nibbles(blocks[:, 48:].view(-1, 4, 32)).view(-1, 8, 32)
    return (low | (fifth << 4)).float().mul_(scale).sub_(least)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    """256 times four low bits, then two high ones, 16 scales in 8 bits, and theirs."""
    scale = blocks[:, 192:208].view(torch.int8).float().mul_(_half(blocks[:, 208:]))
    low = _nibbles(blocks[:, :128].view(-1, 2, 64)).view(-1, 2, 4, 32)
    high = torch.stack([(blocks[:, 128:192].view(-1, 2, 32) >> bit) & 3 for bit in (0, 2, 4, 6)], 2)
    return (low | (high << 4)).float().sub_(32).view(-1, 16, 16).mul_(scale[:, :, None])


def _nibbles(pairs: torch.Tensor) -> torch.Tensor:
    """Bytes [n, runs, k] as halves of a byte [n, runs, 2, k], the low ones of a run first."""
    return torch.stack((pairs & 15, pairs >> 4), 2)


def _scales(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and minima [n, 8, 1] of eight runs: two halves for all, and 6 bits for each in 12 bytes.

    Of those, the first four bytes hold four scales, the next four minima, and in their top bits the top bits of the
    other scales and minima, whose low four bits are the last bytes' halves.
    """
    one, two, rest = blocks[:, 4:16].view(-1, 3, 4).unbind(1)
    scale = torch.cat((one & 63, (rest & 15) | ((one >> 2) & 48)), 1).float().mul_(_half(blocks[:, :2]))
    least = torch.cat((two & 63, (rest >> 4) | ((two >> 2) & 48)), 1).float().mul_(_half(blocks[:, 2:4]))
    return scale[:, :, None], least[:, :, None]


def _half(pair: torch.Tensor) -> torch.Tensor:
    """Two bytes [n, 2] as a float [n, 1]."""
    return pair.view(torch.float16).float()


_PLAIN = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_FAST: dict[Kind, Callable[[torch.Tensor], torch.Tensor]] = {
    Kind.Q4_0: _q4_0, Kind.Q8_0: _q8_0, Kind.Q4_K: _q4_k, Kind.Q5_K: _q5_k, Kind.Q6_K: _q6_k,
}  # fmt: skip
