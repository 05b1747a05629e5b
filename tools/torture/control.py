"""The control of `power`: with synchronous=NORMAL the same harness must find losses, or it is blind."""

from pathlib import Path

from tools.torture import power
from tools.torture.common import Outcome


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Replay `cycles` power cuts of the weaker writer; green when some lost acknowledged records."""
    weak = power.run(folder, cycles, seed, synchronous="NORMAL")
    outcome = Outcome("control", weak.cycles, weak.facts | {"states that lost or did not open": len(weak.bad)})
    outcome.bad += [] if weak.facts.get("lost") else ["no loss seen with synchronous=NORMAL"]
    return outcome
