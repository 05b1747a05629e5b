"""What a learning run has cost: measured while it runs, kept as a record beside its verdict."""

import resource
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from learner.probes import Probes
from learner.usage import Cost, Usage
from store.base import StoreBase
from store.records import Adapter, Receipt, Verdict


class Meter:
    """Measures this process from the moment it is made.

    The energy is the whole machine's during that time: what the counters tell, no model of it.
    """

    def __init__(self, probes: Probes) -> None:
        self._probes, self._began = probes, time.monotonic()
        self._energy = probes.joules()

    def read(self) -> Cost:
        """Return what was used until now; peak memory is this process's alone."""
        joules, source = self._joules()
        return Cost(time.monotonic() - self._began, time.process_time(), _peak(), joules, source)

    def _joules(self) -> tuple[float | None, str]:
        """The counter's advance; none where it wrapped, changed its source or is missing."""
        now = self._probes.joules()
        if now is None or self._energy is None or now[1] != self._energy[1] or now[0] < self._energy[0]:
            return None, ""
        return now[0] - self._energy[0], now[1]


def _peak() -> int:
    """Most bytes that were resident at once; Linux counts a parent's memory into getrusage, so its own file is read."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def record(store: StoreBase, usage: Usage, verdict: Verdict | None, code: str = "") -> Receipt:
    """Keep the receipt of a run that ended with `verdict`, or failed with the error `code`."""
    adapter = store.last(Adapter, digest=verdict.adapter) if verdict and verdict.adapter else None
    parent = store.last(Adapter, digest=adapter.parent) if adapter and adapter.parent else None
    learned = len(set(adapter.examples) - set(parent.examples if parent else ())) if adapter else 0
    outcome: Literal["adopt", "wait", "reject", "failed"] = verdict.decision if verdict else "failed"
    receipt = Receipt(
        run=verdict.id if verdict else "", outcome=outcome, code=code, wall=usage.wall, cpu=usage.cpu,
        peak=usage.peak, joules=usage.joules, energy=usage.energy, tokens=usage.tokens, steps=usage.steps,
        attempts=usage.attempts, corrections=learned, fixed=len(verdict.fixed) if verdict else 0,
        broken=len(verdict.broken) if verdict else 0, time=verdict.time if verdict else time.time(),
    )  # fmt: skip
    store.add(receipt)
    return receipt


def minutes_today(receipts: Iterable[Receipt], now: datetime) -> float:
    """Return the wall time of the runs that ended since midnight, in minutes."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    return sum(one.wall for one in receipts if one.time >= midnight) / 60


def of(receipts: Sequence[Receipt], verdict: Verdict) -> Receipt | None:
    """Return the receipt of the run that gave `verdict`."""
    return next((one for one in reversed(receipts) if one.run == verdict.id), None)
