"""What was learned over time, from the records alone: runs, their cost, and whether the owner corrects less.

Loads no model and no torch. Numbers and names only.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from store.base import StoreBase
from store.records import Activation, Correction, Interaction, LiveVerdict, Receipt, Verdict

BLOCK = 50  # answers per point of the curve


@dataclass(frozen=True, slots=True)
class Run:
    """One learning run: its verdict (None: it failed) and what it cost (None: from before receipts were kept)."""

    verdict: Verdict | None
    receipt: Receipt | None
    time: float


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of answers and how many of 100 were corrected."""

    answers: int  # given until its end
    corrected: float  # percent
    time: float  # of its last answer


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed what serves."""

    answers: int  # given before it
    kind: str  # "adopt", "reject", "wait", "rollback", "keep"
    adapter: str
    time: float


@dataclass(frozen=True, slots=True)
class History:
    """All of it, oldest first."""

    runs: tuple[Run, ...]
    live: tuple[LiveVerdict, ...]
    curve: tuple[Point, ...]
    changes: tuple[Change, ...]
    answers: int


def history(store: StoreBase, *, block: int = BLOCK) -> History:
    """Read everything that says how learning went."""
    verdicts, receipts, live = store.all(Verdict), store.all(Receipt), tuple(store.all(LiveVerdict))
    asked = sorted((one.time, one.id) for one in store.all(Interaction))
    corrected = frozenset(one.interaction for one in store.all(Correction))
    times = [time for time, _ in asked]
    changes = [Change(_before(times, one.time), one.decision, one.adapter, one.time) for one in verdicts if one.adapter]
    changes += [Change(_before(times, one.time), one.decision, one.adapter, one.time) for one in live]
    changes += [
        Change(_before(times, one.time), "rollback", one.adapter or "", one.time)
        for one in store.all(Activation)
        if one.reason == "rollback"
    ]
    return History(
        _runs(verdicts, receipts), live, _curve(asked, corrected, block),
        tuple(sorted(changes, key=lambda change: change.time)), len(asked),
    )  # fmt: skip


def totals(runs: Sequence[Run]) -> dict[str, float]:
    """Return what all runs together cost: wall and cpu in hours, joules where known, tokens, corrections learned."""
    receipts = [run.receipt for run in runs if run.receipt]
    adopted = [one for one in receipts if one.outcome == "adopt"]
    return {
        "runs": len(runs),
        "adopted": len(adopted),
        "wall_hours": sum(one.wall for one in receipts) / 3600,
        "cpu_hours": sum(one.cpu for one in receipts) / 3600,
        "joules": sum(one.joules or 0.0 for one in receipts),
        "peak_bytes": max((one.peak for one in receipts), default=0),
        "tokens": sum(one.tokens for one in receipts),
        "corrections": sum(one.corrections for one in adopted),
    }


def _runs(verdicts: Sequence[Verdict], receipts: Sequence[Receipt]) -> tuple[Run, ...]:
    """Verdicts with their receipts, and the runs that failed."""
    paid = {one.run: one for one in receipts if one.run}
    runs = [Run(one, paid.get(one.id), one.time) for one in verdicts]
    runs += [Run(None, one, one.time) for one in receipts if not one.run]
    return tuple(sorted(runs, key=lambda run: run.time))


def _curve(asked: Sequence[tuple[float, str]], corrected: frozenset[str], block: int) -> tuple[Point, ...]:
    """Corrections per 100 answers, block by block; a last block of less than half is left out."""
    points = []
    for first in range(0, len(asked), block):
        part = asked[first : first + block]
        if len(part) * 2 >= block:
            share = sum(id in corrected for _, id in part) / len(part)
            points.append(Point(first + len(part), 100 * share, part[-1][0]))
    return tuple(points)


def _before(times: Sequence[float], moment: float) -> int:
    """How many answers were given before `moment`."""
    return bisect_left(times, moment)
