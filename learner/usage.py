"""What a run costs, and whether one is unfinished. Loads no torch, so that the daemon stays small."""

from dataclasses import dataclass, replace
from pathlib import Path

from store.paths import Home


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process has cost."""

    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds
    peak: int = 0  # bytes resident at most
    joules: float | None = None
    energy: str = ""  # where the joules come from


@dataclass
class Usage:
    """What a run has cost, over all processes that worked on it; units as in `Cost`."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    joules: float | None = None
    energy: str = ""
    tokens: int = 0
    steps: int = 0
    attempts: int = 0

    def with_cost(self, cost: Cost) -> "Usage":
        """This usage and that of one more process."""
        joules = None if cost.joules is None else (self.joules or 0.0) + cost.joules
        return replace(
            self, wall=self.wall + cost.wall, cpu=self.cpu + cost.cpu, peak=max(self.peak, cost.peak),
            joules=self.joules if joules is None else joules, energy=cost.energy or self.energy,
        )  # fmt: skip


def pointer(home: Home) -> Path:
    """The file that names the journal; there is one exactly while a run is unfinished."""
    return home.state / "learn.checkpoint"
