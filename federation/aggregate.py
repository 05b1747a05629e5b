"""What becomes of a round's admitted updates: one object the strategy hands each of them to and asks for the result.

That object is the seam for every rule, and for secure sums. One vote per device, whatever it says about itself, and
memory that does not depend on the number of devices: the mean is a running sum of integers, exact and the same in
any order; the other rules write the levels to a temporary file and read it back in blocks of coordinates.

Rules (all coordinate-wise but the last): mean; trimmed mean and median (Yin et al. 2018, arXiv 1803.01498); the mean of
the updates whose norm is not an outlier among the round's norms.
"""

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from federation.update import Expected, Levels, PrivateUpdate, unflatten
from store.errors import NotEligible, UsageError
from store.files import unwritable

Rule = Literal["mean", "trimmed", "median", "norm"]
RULES: tuple[Rule, ...] = get_args(Rule)
BLOCK = 32 << 20  # bytes of levels read back at once
OUTLIER = 3.0  # standard deviations above the median norm, estimated from the median absolute deviation
NORMAL = 1.4826  # standard deviation of a normal sample over its median absolute deviation
SPREAD = 0.05  # least tolerance above the median norm, as a share of it: pure noise gives nearly equal norms

STATEMENTS: dict[str, str] = {
    "correction": "each update is private before it leaves its device, so any rule over updates is post-processing",
    "device": "the noise is private only in the sum of all devices, so the mean is the only rule that may be used",
}


def statement(rule: Rule, unit: str) -> str:
    """Say why the privacy statement of `unit` holds under `rule`.

    Raises:
        UsageError: it does not, or one of them is unknown (code ``rule``).
    """
    if rule not in RULES or unit not in STATEMENTS or (unit == "device" and rule != "mean"):
        raise UsageError(
            f"the rule '{rule}' cannot be used with privacy per {unit}",
            hint=f"Rules are {', '.join(RULES)}; privacy per device needs the mean.",
            code="rule",
        )
    return STATEMENTS[unit]


class Aggregate(Protocol):
    """What the strategy needs of a rule."""

    count: int  # updates taken in
    used: int  # updates the result rests on, known once there is one

    def add(self, update: PrivateUpdate) -> None:
        """Take in one admitted update."""

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Return the change of B, one matrix [outputs, rank] per linear.

        Raises:
            NotEligible: nothing was added.
        """

    def close(self) -> None:
        """Give back what is held outside memory."""


def aggregate(expected: Expected, rule: Rule = "mean", *, trim: float = 0.2, scratch: Path | None = None) -> Aggregate:
    """Return an empty aggregate for one round.

    Args:
        expected: what every update of the round says about itself.
        rule: how updates are combined.
        trim: share of values left out at each end (rule ``trimmed``), below 0.5.
        scratch: folder for the temporary file; the system's by default.

    Raises:
        UsageError: the rule does not fit the unit of privacy, or `trim` is out of range.
    """
    statement(rule, expected.spec.unit)
    if not 0 <= trim < 0.5:
        raise UsageError("the share trimmed at each end is at least 0 and below 0.5", code="trim")
    if rule == "mean":
        return UniformMean(expected)
    if rule == "norm":
        return NormFiltered(expected, scratch)
    return TrimmedMean(expected, 0.5 if rule == "median" else trim, scratch)


class UniformMean:
    """Running sum of levels as integers, wide enough for 16 million updates of 8 bits."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._sum: Levels = np.zeros(expected.count, dtype=np.int32 if expected.spec.bits == 8 else np.int64)
        self.count = self.used = 0

    def add(self, update: PrivateUpdate) -> None:
        """Take in one admitted update."""
        self._sum += update.levels
        self.count = self.used = self.count + 1

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean change of B.

        Raises:
            NotEligible: nothing was added.
        """
        return _change(self._sum / _some(self.count), self._expected)

    def close(self) -> None:
        """Nothing is held outside memory."""


class TrimmedMean:
    """Mean of each coordinate without its `trim` share of smallest and of largest values; 0.5 gives the median."""

    def __init__(self, expected: Expected, trim: float, scratch: Path | None) -> None:
        self._expected, self._trim = expected, trim
        self._spool = _Spool(scratch)
        self.count = self.used = 0

    def add(self, update: PrivateUpdate) -> None:
        """Take in one admitted update."""
        self._spool.write(update.levels)
        self.count += 1

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Return the trimmed mean change of B.

        Raises:
            NotEligible: nothing was added.
        """
        cut = min(int(self._trim * _some(self.count)), (self.count - 1) // 2)
        self.used = self.count
        found = np.empty(self._expected.count)
        for start, block in self._spool.columns():
            block.sort(axis=1)
            found[start : start + len(block)] = block[:, cut : self.count - cut].mean(axis=1)
        return _change(found, self._expected)

    def close(self) -> None:
        """Drop the temporary file."""
        self._spool.close()


class NormFiltered:
    """Mean of the updates whose norm does not stand out above the round's median norm."""

    def __init__(self, expected: Expected, scratch: Path | None) -> None:
        self._expected = expected
        self._spool = _Spool(scratch)
        self._norms = array("d")
        self.count = self.used = 0

    def add(self, update: PrivateUpdate) -> None:
        """Take in one admitted update."""
        self._spool.write(update.levels)
        self._norms.append(update.norm)
        self.count += 1

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean change of B over the updates kept.

        Raises:
            NotEligible: nothing was added.
        """
        _some(self.count)
        norms = np.frombuffer(self._norms)
        middle = float(np.median(norms))
        tolerance = max(OUTLIER * NORMAL * float(np.median(np.abs(norms - middle))), SPREAD * middle)
        kept = norms <= middle + tolerance
        total = np.zeros(self._expected.count, dtype=np.int64)
        for row in np.flatnonzero(kept):
            total += self._spool.row(int(row))
        self.used = int(kept.sum())
        return _change(total / self.used, self._expected)

    def close(self) -> None:
        """Drop the temporary file."""
        self._spool.close()


class _Spool:
    """Levels of all updates in a temporary file without a name, one row per update.

    Only private numbers are in it. It is gone with the process, however that ends.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise unwritable(error) from None
        self._rows = 0
        self._like: Levels = np.empty(0, dtype=np.int8)

    def write(self, levels: Levels) -> None:
        """Append one row; a row that does not fit on the disk leaves none behind.

        Raises:
            CorrigibleError: the disk is full.
        """
        self._like = levels[:0]
        try:
            self._file.seek(self._rows * levels.nbytes)
            if self._file.write(levels.tobytes()) != levels.nbytes:
                raise OSError(28, "")
        except OSError as error:
            raise unwritable(error) from None
        self._width = len(levels)
        self._rows += 1

    def row(self, number: int) -> Levels:
        """One update's levels."""
        return self._read(number * self._width, self._width)

    def columns(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first coordinate, levels of shape [coordinates, updates]) in blocks of bounded size."""
        size = max(1, BLOCK // (self._rows * self._like.itemsize))
        for start in range(0, self._width, size):
            width = min(size, self._width - start)
            block = np.empty((self._rows, width), dtype=self._like.dtype)
            for row in range(self._rows):
                block[row] = self._read(row * self._width + start, width)
            yield start, np.ascontiguousarray(block.T)

    def _read(self, start: int, count: int) -> Levels:
        self._file.seek(start * self._like.itemsize)
        return np.frombuffer(self._file.read(count * self._like.itemsize), dtype=self._like.dtype)

    def close(self) -> None:
        self._file.close()


def _some(count: int) -> int:
    """`count`, unless it is none."""
    if not count:
        raise NotEligible("no update to average", code="no_updates")
    return count


def _change(levels: NDArray[np.float64], expected: Expected) -> dict[str, NDArray[np.float32]]:
    """Levels as a change of B."""
    return unflatten((levels * expected.spec.quantum).astype(np.float32), expected.layout)
