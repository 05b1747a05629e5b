"""`PrivateUpdate`: the only thing about a person's corrections that can be put on the wire.

A fixed-length header and one small integer per coordinate of the B factors, rounded stochastically after the noise.
The length depends on the public spec and model alone. No loss, no counts, no text. Training and noise happen before,
in `learner.private`; signatures are the protocol's business.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.spec import RoundSpec
from learner.noise import stochastic_round
from store.errors import CorrigibleError, UsageError
from store.records import HASH_TAG

if TYPE_CHECKING:
    from learner.private import PrivateDelta  # for its type alone: importing it loads Opacus

MAGIC: Final = b"CRUP"
VERSION: Final = 1
MECHANISM: Final = (
    "unit", "clipping_norm", "noise_multiplier", "sampling_rate", "steps", "divisor", "learning_rate", "rank",
    "alpha", "seed_a", "layers", "max_tokens",
)  # fmt: skip
HEADER: Final = struct.Struct("<4sBBHII32s32s32s")  # magic, version, bits, 0, round, count, base, release, spec

BLOCK: Final = 1 << 18  # coordinates squared at once, as float32

Levels = NDArray[np.signedinteger[Any]]
Layout = tuple[tuple[str, int, int], ...]  # (name of the linear, outputs, rank) in canonical order


class UpdateRefused(CorrigibleError):
    """An update was refused; `reason` is one word for the log and the counters."""

    code = "update_refused"

    def __init__(self, reason: str) -> None:
        super().__init__(f"update refused: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Expected:
    """What every update of one round must say about itself."""

    base: str
    release: str
    round: int
    spec: RoundSpec
    layout: Layout

    @property
    def count(self) -> int:
        """Coordinates of one update."""
        return sum(outputs * rank for _, outputs, rank in self.layout)

    @property
    def size(self) -> int:
        """Bytes of one update."""
        return HEADER.size + self.count * self.spec.bits // 8

    @property
    def header(self) -> bytes:
        """The header all updates of the round share."""
        hashes = (_raw(self.base), _raw(self.release), _raw(self.spec.id))
        return HEADER.pack(MAGIC, VERSION, self.spec.bits, 0, self.round, self.count, *hashes)


@dataclass(frozen=True, slots=True)
class PrivateUpdate:
    """One device's noisy, rounded change of the B factors, as integer levels of shape [count]."""

    expected: Expected
    levels: Levels

    def encode(self) -> bytes:
        """Return the bytes for the wire, always `expected.size` long."""
        return self.expected.header + self.levels.astype(_wire_type(self.expected.spec)).tobytes()

    @property
    def norm(self) -> float:
        """L2 norm of the change it stands for, to six digits."""
        blocks = (self.levels[start : start + BLOCK] for start in range(0, len(self.levels), BLOCK))
        squares = (float(block @ block) for block in (each.astype(np.float32) for each in blocks))
        return self.expected.spec.quantum * math.sqrt(sum(squares))

    def values(self) -> NDArray[np.float32]:
        """Return the change it stands for, float32 [count]."""
        return (self.levels * np.float32(self.expected.spec.quantum)).astype(np.float32)


def privatise(delta: "PrivateDelta", expected: Expected) -> PrivateUpdate:
    """Turn the noised change of the B factors into the update that leaves.

    Args:
        delta: what private training returned; it names the mechanism it came from.
        expected: what the round asks for.

    Everything here is post-processing of a differentially private value: scaling down to the norm bound, rounding
    up or down with probability proportional to the distance (OS randomness), saturating at the largest level.

    Raises:
        UsageError: the delta came from another mechanism, lacks a matrix, has other shapes or is not finite.
    """
    spec = expected.spec
    if any(getattr(delta.spec, name) != getattr(spec, name) for name in MECHANISM):
        raise UsageError("the change came from another mechanism than the round asks for", code="mechanism")
    flat = flatten(delta.b, expected.layout)
    room = spec.max_norm - spec.quantum * np.sqrt(expected.count)  # rounding moves a coordinate by less than a quantum
    if room <= 0:
        raise UsageError("the spec's norm bound is smaller than its rounding", code="spec")
    flat = flat * (min(1.0, room / max(float(np.linalg.norm(flat)), 1e-30)) / spec.quantum)
    levels = stochastic_round(flat, -_top(spec), _top(spec))
    return PrivateUpdate(expected, levels.astype(_wire_type(spec)))


def decode(data: bytes, expected: Expected) -> PrivateUpdate:
    """Check and parse the bytes of an update; the size is checked before anything is read.

    Raises:
        UpdateRefused: reason ``size, magic, version, bits, count, base, release, spec, round, header, range, norm``.
    """
    if len(data) != expected.size:
        raise UpdateRefused("size")
    _check_header(HEADER.unpack_from(data), HEADER.unpack(expected.header))
    levels = np.frombuffer(data, dtype=_wire_type(expected.spec), offset=HEADER.size)
    if levels.size and int(levels.min()) < -_top(expected.spec):
        raise UpdateRefused("range")
    update = PrivateUpdate(expected, levels)
    if update.norm > expected.spec.max_norm:
        raise UpdateRefused("norm")
    return update


def flatten(change: Mapping[str, NDArray[np.float32]], layout: Layout) -> NDArray[np.float64]:
    """Concatenate the matrices in the layout's order, float64 [count].

    Raises:
        UsageError: names or shapes differ from the layout, or a value is not finite.
    """
    if set(change) != {name for name, _, _ in layout} or any(
        change[name].shape != (outputs, rank) for name, outputs, rank in layout
    ):
        raise UsageError("the change does not fit the round's layout", code="layout")
    flat = np.concatenate([np.asarray(change[name], dtype=np.float64).ravel() for name, _, _ in layout])
    if not np.isfinite(flat).all():
        raise UsageError("the change is not finite", code="not_finite")
    return flat


def unflatten(flat: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Cut a flat vector back into one matrix [outputs, rank] per linear."""
    cuts = np.cumsum([outputs * rank for _, outputs, rank in layout])[:-1]
    return {
        name: part.reshape(outputs, rank)
        for (name, outputs, rank), part in zip(layout, np.split(flat, cuts), strict=True)
    }


def _check_header(got: tuple[object, ...], wanted: tuple[object, ...]) -> None:
    """Compare field by field, so that the reason names what is wrong."""
    words = ("magic", "version", "bits", "header", "round", "count", "base", "release", "spec")
    for word, value, right in zip(words, got, wanted, strict=True):
        if value != right:
            raise UpdateRefused(word)


def _raw(tagged: str) -> bytes:
    """The 32 bytes of a tagged hash."""
    return bytes.fromhex(tagged.removeprefix(HASH_TAG))


def _wire_type(spec: RoundSpec) -> np.dtype[np.signedinteger[Any]]:
    """Little-endian integers of the spec's width."""
    return np.dtype("<i1") if spec.bits == 8 else np.dtype("<i2")


def _top(spec: RoundSpec) -> int:
    """The largest level; its negative is the smallest, so the range is symmetric."""
    return (1 << (spec.bits - 1)) - 1
