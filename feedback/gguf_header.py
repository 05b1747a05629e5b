"""A strict reader of GGUF headers, run before llama.cpp sees a byte.

llama.cpp ends the process on some damaged headers instead of reporting them, so whatever would make it do that is
refused here: impossible lengths, wrong types, duplicate or empty names, tensors outside the file.
It reads names, types and shapes only; weights are neither read nor copied.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from store.errors import IntegrityError

Buffer = bytes | mmap.mmap
Data = int | float | bool | str | list[int] | list[float] | list[bool] | list[bytes]
T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

MAX_COUNT = 1 << 24  # keys, tensors or elements of one array: far above any real model
MAX_KEY = 1 << 12  # bytes
MAX_STRING = 1 << 26  # bytes
MAX_NAME = 63  # bytes; ggml keeps 64 with the closing zero
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True, slots=True)
class Value:
    """One metadata value with its GGUF type; `element` is the type of an array's elements."""

    kind: int
    data: Data
    element: int = -1


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: `shape` fastest axis first as GGUF stores it, `start` and `size` in bytes of the file."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything in front of the weights."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, Tensor]

    def text(self, key: str) -> str | None:
        """Return the string under `key`; None when absent or not a string."""
        value = self.metadata.get(key)
        return value.data if value is not None and isinstance(value.data, str) else None

    def uint32(self, key: str) -> int | None:
        """Return the unsigned 32-bit number under `key`; None when absent or of another type."""
        value = self.metadata.get(key)
        return value.data if value is not None and value.kind == UINT32 and isinstance(value.data, int) else None

    def float32(self, key: str) -> float | None:
        """Return the finite 32-bit float under `key`; None when absent, of another type or not finite."""
        value = self.metadata.get(key)
        if value is None or value.kind != FLOAT32 or not isinstance(value.data, float):
            return None
        return value.data if math.isfinite(value.data) else None

    def array(self, key: str, element: int) -> list[bytes] | list[int] | list[float] | list[bool] | None:
        """Return the array under `key` when its elements have the GGUF type `element`, else None."""
        value = self.metadata.get(key)
        return value.data if value is not None and value.element == element and isinstance(value.data, list) else None


def read_header(data: Buffer) -> Header:
    """Parse and check the header of the GGUF in `data`.

    Raises:
        IntegrityError: not a GGUF, truncated, or it contradicts itself.
    """
    if data[:4] != MAGIC:
        raise damaged("it does not start like a GGUF file")
    cursor = _Cursor(data, 4)
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise damaged(f"GGUF version {version} is not supported")
    tensors, keys = cursor.count(), cursor.count()
    metadata = _named(keys, cursor.field, "a key")
    described = _named(tensors, cursor.tensor, "a tensor")
    alignment = _alignment(metadata)
    base = -(-cursor.place // alignment) * alignment
    return Header(metadata, {name: _placed(raw, base, alignment, len(data)) for name, raw in described.items()})


def damaged(why: str) -> IntegrityError:
    """Return the error for a file not to be trusted; `why` is a clause of the program's own words."""
    return IntegrityError(f"The GGUF is damaged or foreign: {why}.", hint="Fetch or export the file again.")


def _named(count: int, read: Callable[[], tuple[str, T]], what: str) -> dict[str, T]:
    """Read `count` named things, refusing a name that comes twice."""
    found: dict[str, T] = {}
    for _ in range(count):
        name, value = read()
        if name in found:
            raise damaged(f"{what} comes twice")
        found[name] = value
    return found


def _alignment(metadata: Mapping[str, Value]) -> int:
    """The alignment of tensor data in bytes: a power of two, 32 unless stated."""
    value = metadata.get("general.alignment", Value(UINT32, 32))
    size = value.data
    if value.kind != UINT32 or not isinstance(size, int) or not 8 <= size <= 1 << 16 or size & (size - 1):
        raise damaged("its alignment is not a power of two")
    return size


def _placed(raw: tuple[tuple[int, ...], int, int], base: int, alignment: int, total: int) -> Tensor:
    """Check one tensor's shape, type and place against the file of `total` bytes."""
    shape, number, offset = raw
    if number not in GGMLQuantizationType.__members__.values():
        raise damaged("a tensor has an unknown type")
    kind = GGMLQuantizationType(number)
    block, width = GGML_QUANT_SIZES[kind]
    elements = math.prod(shape)
    if not 0 < elements <= MAX_ELEMENTS or shape[0] % block or offset % alignment:
        raise damaged("a tensor has an impossible shape or place")
    size = elements // block * width
    if base + offset + size > total:
        raise damaged("a tensor reaches beyond the end of the file")
    return Tensor(shape, kind, base + offset, size)


class _Cursor:
    """Reads forward through a header; every read is bounds-checked."""

    def __init__(self, data: Buffer, place: int) -> None:
        self.data, self.place = data, place

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        chunk = self.data[self.place : self.place + size]
        if len(chunk) != size:
            raise damaged("it is truncated")
        self.place += size
        return chunk

    def scalar(self, code: str) -> int:
        """The next whole number with the struct code `code`."""
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return int(value)

    def count(self) -> int:
        """A number of things, small enough to be true."""
        value = self.scalar("Q")
        if value > MAX_COUNT:
            raise damaged("it claims an impossible count")
        return value

    def string(self, limit: int) -> bytes:
        """A length-prefixed string of at most `limit` bytes."""
        size = self.scalar("Q")
        if size > limit:
            raise damaged("it claims an impossible length")
        return self.take(size)

    def name(self, limit: int) -> str:
        """A key or tensor name: printable ASCII, not empty."""
        raw = self.string(limit)
        if not raw.isascii() or not raw.decode("ascii").isprintable() or not raw:
            raise damaged("a name is empty or not printable")
        return raw.decode("ascii")

    def field(self) -> tuple[str, Value]:
        """One key and its value."""
        name, kind = self.name(MAX_KEY), self.scalar("I")
        if kind == ARRAY:
            element = self.scalar("I")
            return name, Value(ARRAY, self.array(element), element)
        if kind == STRING:
            return name, Value(STRING, self.text())
        return name, Value(kind, self.numbers(kind, 1)[0])

    def text(self) -> str:
        """A UTF-8 string."""
        try:
            return self.string(MAX_STRING).decode()
        except UnicodeDecodeError:
            raise damaged("a text in it is not UTF-8") from None

    def array(self, element: int) -> list[int] | list[float] | list[bool] | list[bytes]:
        """The elements of a flat array."""
        count = self.count()
        if element == STRING:
            return [self.string(MAX_STRING) for _ in range(count)]
        return self.numbers(element, count)

    def numbers(self, kind: int, count: int) -> list[int] | list[float] | list[bool]:
        """The next `count` numbers of GGUF type `kind`."""
        if kind not in SCALARS:
            raise damaged("a value has an unknown type")
        form = f"<{count}{SCALARS[kind]}"
        return list(struct.unpack(form, self.take(struct.calcsize(form))))

    def tensor(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        """One tensor's name, shape, type number and offset."""
        name, dimensions = self.name(MAX_NAME), self.scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise damaged("a tensor has an impossible number of axes")
        shape = tuple(self.scalar("Q") for _ in range(dimensions))
        return name, (shape, self.scalar("I"), self.scalar("Q"))
