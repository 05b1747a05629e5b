"""An adapter as GGUF bytes, the form in which it is stored, hashed, served and sent, and back.

Written and read in memory only: an adapter learned from somebody's words never touches the disk in clear. The
encoding is canonical (same weights, same bytes) and the reader accepts nothing else, so a digest names one adapter.
Layout: GGUF version 3 (ggml's docs/gguf.md); LoRA keys and names as llama.cpp's own converter writes them.
"""

import struct
from collections.abc import Mapping

import gguf
import numpy as np

from feedback.gguf_header import FLOAT32, STRING, Header, read_header
from learner.base import Geometry
from learner.lora import Array, LoraWeights, require_finite, require_fit
from store.errors import IntegrityError

_ALIGN = 32
_ROTARY_PERMUTED = frozenset({"llama"})  # architectures whose q and k rows llama.cpp reorders


def to_gguf(weights: LoraWeights, geometry: Geometry, base: str) -> bytes:
    """Return the adapter's canonical bytes.

    Args:
        base: tagged hash of the base GGUF, written into the file.
    Raises:
        IntegrityError: not finite, or made for other shapes.
    """
    require_finite(weights)
    require_fit(weights, geometry)
    names = tensor_names(geometry)
    tensors: dict[str, Array] = {}
    for path in sorted(names, key=names.__getitem__):
        tensors[f"{names[path]}.lora_a"] = weights.a[path]
        tensors[f"{names[path]}.lora_b"] = _reorder(weights.b[path], path, geometry)
    return _write(_metadata(geometry, weights.alpha, base), tensors)


def from_gguf(data: bytes, geometry: Geometry, base: str) -> LoraWeights:
    """Read canonical adapter bytes back.

    Raises:
        IntegrityError: damaged, made for another base, not finite, or not in canonical form.
    """
    header, tensors = _tensors(data)
    names = tensor_names(geometry)
    alpha = header.float32("adapter.lora.alpha")
    wanted = {f"{name}.lora_{part}" for name in names.values() for part in "ab"}
    if header.text("corrigible.base") != base or alpha is None or set(tensors) != wanted:
        raise IntegrityError("The adapter was made for another base model.", code="foreign_adapter")
    a = {path: tensors[f"{name}.lora_a"] for path, name in names.items()}
    b = {path: _restore(tensors[f"{name}.lora_b"], path, geometry) for path, name in names.items()}
    weights = LoraWeights(a, b, alpha)
    if to_gguf(weights, geometry, base) != data:
        raise IntegrityError("The adapter file is not in canonical form.", code="adapter_unreadable")
    return weights


def _metadata(geometry: Geometry, alpha: float, base: str) -> dict[str, str | float]:
    """Keys llama.cpp asks for, and the base the adapter belongs to."""
    return {
        "general.architecture": geometry.architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
        "corrigible.base": base,
    }


def tensor_names(geometry: Geometry) -> dict[str, str]:
    """Return module path -> GGUF tensor name with its `.weight`, for every adapted linear.

    Raises:
        IntegrityError: llama.cpp has no name for one.
    """
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == geometry.architecture)
    table = gguf.get_tensor_name_map(arch, geometry.layers)
    names = {path: table.get_name(path) for path in geometry.shapes}
    if None in names.values():
        raise IntegrityError("A layer of the base model has no name in llama.cpp.", code="architecture")
    return {path: f"{name}.weight" for path, name in names.items()}


def _rotary_heads(path: str, geometry: Geometry) -> int:
    """Heads whose rows are reordered for this linear; 0 when none are."""
    if geometry.architecture not in _ROTARY_PERMUTED:
        return 0
    return {"q_proj": geometry.heads, "k_proj": geometry.kv_heads}.get(path.rsplit(".", 1)[-1], 0)


def _reorder(b: Array, path: str, geometry: Geometry) -> Array:
    """Rows [head, half, dim/2] as transformers keeps them -> [head, dim/2, half] as llama.cpp does."""
    heads = _rotary_heads(path, geometry)
    if not heads:
        return b
    out, rank = b.shape
    return b.reshape(heads, 2, out // heads // 2, rank).swapaxes(1, 2).reshape(out, rank)


def _restore(b: Array, path: str, geometry: Geometry) -> Array:
    """Inverse of `_reorder`."""
    heads = _rotary_heads(path, geometry)
    if not heads:
        return b
    out, rank = b.shape
    return b.reshape(heads, out // heads // 2, 2, rank).swapaxes(1, 2).reshape(out, rank)


def _text(value: str) -> bytes:
    """A GGUF string: length and UTF-8."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padding(size: int) -> bytes:
    """Zeros up to the next aligned offset."""
    return b"\0" * (-size % _ALIGN)


def _write(metadata: Mapping[str, str | float], tensors: Mapping[str, Array]) -> bytes:
    """Serialise key-values, tensor table and float32 data."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        body = (
            struct.pack("<I", STRING) + _text(value) if isinstance(value, str) else struct.pack("<If", FLOAT32, value)
        )
        parts.append(_text(key) + body)
    offset = 0
    for name, array in tensors.items():
        rows, columns = array.shape
        parts.append(_text(name) + struct.pack("<IQQIQ", 2, columns, rows, int(gguf.GGMLQuantizationType.F32), offset))
        offset += array.size * 4 + len(_padding(array.size * 4))
    header = b"".join(parts)
    data = [np.ascontiguousarray(array, dtype="<f4").tobytes() for array in tensors.values()]
    return b"".join([header, _padding(len(header)), *(raw + _padding(len(raw)) for raw in data)])


def _tensors(data: bytes) -> tuple[Header, dict[str, Array]]:
    """Read header and matrices [rows, columns]; IntegrityError where the file is damaged or not float32."""
    header = read_header(data)
    found: dict[str, Array] = {}
    for name, tensor in header.tensors.items():
        if len(tensor.shape) != 2 or tensor.kind is not gguf.GGMLQuantizationType.F32:
            raise IntegrityError("The adapter file is not in canonical form.", code="adapter_unreadable")
        columns, rows = tensor.shape
        flat = np.frombuffer(data, "<f4", rows * columns, tensor.start)
        found[name] = flat.reshape(rows, columns).astype(np.float32)
    return header, found
