"""What llama.cpp multiplies by what: the input of every weight matrix, and its rounding of that input.

For a quantised matrix llama.cpp rounds the activations too (to blocks of 8 bits, to half precision, ...), each
processor with its own code. Here that very code is called, so that training can be compared with serving
under the same rounding. Struct layouts are those of the ggml in llama-cpp-python 0.3.36 (its `ggml.h`, `ggml-cpu.h`).
"""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from llama_cpp import ggml_backend_sched_eval_callback
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FLOAT32 = int(GGMLQuantizationType.F32)


class _Tensor(ctypes.Structure):
    """ggml_tensor up to its name."""


_Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64),
]  # fmt: skip


class Trace:
    """Collects, while an engine that was opened with it computes, what each weight matrix is multiplied by.

    Attributes:
        inputs: name of the weight -> its input [tokens, in] in the last call; overwritten by the next.
        kinds: name of the weight -> how the file stores it.
        callback: what llama.cpp is given.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Floats] = {}
        self.kinds: dict[str, GGMLQuantizationType] = {}
        self.callback = ggml_backend_sched_eval_callback(self._see)

    def _see(self, address: int, ask: bool, _user_data: int | None) -> bool:
        """Asked beforehand whether a result is of interest; told when it is there, with its inputs still in place."""
        node = ctypes.cast(address, ctypes.POINTER(_Tensor)).contents
        if not (node.src[0] and node.src[1]):
            return not ask
        weight, given = node.src[0].contents, node.src[1].contents
        name = weight.name.decode(errors="replace")
        fits = given.type == _FLOAT32 and weight.ne[0] == given.ne[0] and weight.ne[1] > 1
        matrix = fits and name.endswith(".weight")
        if ask or not matrix:
            return matrix or not ask
        self.kinds[name] = GGMLQuantizationType(weight.type)
        self.inputs[name] = _rows(given)
        return True


def rounded(kind: GGMLQuantizationType, x: Floats) -> Floats:
    """Return the numbers that llama.cpp takes for `x` [rows, in] where it multiplies it by a matrix of `kind`."""
    to = GGMLQuantizationType(_Cpu.of(kind).vec_dot_type)
    if to is GGMLQuantizationType.F32:
        return x
    block, size = GGML_QUANT_SIZES[to]
    flat = np.ascontiguousarray(x, np.float32)
    raw = np.empty((flat.size // block, size), np.uint8)
    _Cpu.of(to).from_float(flat.ctypes.data, raw.ctypes.data, flat.size)
    return _UNPACK[to](raw).astype(np.float32).reshape(flat.shape)


_get_traits = libggml.ggml_get_type_traits_cpu
_get_traits.argtypes = [ctypes.c_int]


class _Cpu(ctypes.Structure):
    """ggml_type_traits_cpu up to the type that activations are rounded to."""

    _fields_: ClassVar = [
        ("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("vec_dot", ctypes.c_void_p), ("vec_dot_type", ctypes.c_int),
    ]  # fmt: skip

    @staticmethod
    def of(kind: GGMLQuantizationType) -> Any:  # noqa: ANN401 - ctypes
        """ggml's own entry for a type."""
        return _get_traits(int(kind)).contents


_get_traits.restype = ctypes.POINTER(_Cpu)


def _bytes_as(kind: str, raw: NDArray[np.uint8], start: int, stop: int | None) -> NDArray[Any]:
    """A field of every block [blocks, numbers]."""
    return np.ascontiguousarray(raw[:, start:stop]).view(kind)


# Blocks as bytes [blocks, size] -> numbers; `ggml-common.h`: a scale (half or single precision), then 8-bit integers.
_UNPACK: dict[GGMLQuantizationType, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
    GGMLQuantizationType.F16: lambda raw: raw.view("<f2"),
    GGMLQuantizationType.BF16: lambda raw: (raw.view("<u2").astype("<u4") << 16).view("<f4"),
    GGMLQuantizationType.Q8_0: lambda raw: _bytes_as("<f2", raw, 0, 2).astype("<f4") * _bytes_as("i1", raw, 2, None),
    GGMLQuantizationType.Q8_1: lambda raw: _bytes_as("<f2", raw, 0, 2).astype("<f4") * _bytes_as("i1", raw, 4, None),
    GGMLQuantizationType.Q8_K: lambda raw: _bytes_as("<f4", raw, 0, 4) * _bytes_as("i1", raw, 4, 260),
}


def _rows(tensor: Any) -> Floats:  # noqa: ANN401 - ctypes
    """Copy a float32 tensor as [rows, columns]; rows may lie apart."""
    columns, rows = int(tensor.ne[0]), int(tensor.ne[1] * tensor.ne[2] * tensor.ne[3])
    stride = int(tensor.nb[1])
    raw: Any = (ctypes.c_char * ((rows - 1) * stride + 4 * columns)).from_address(tensor.data)
    lines = np.lib.stride_tricks.as_strided(np.frombuffer(raw, np.float32), (rows, columns), (stride, 4))
    return lines.copy()
