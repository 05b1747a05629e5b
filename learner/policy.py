"""What a learning run can be told and what it tells while it runs. Loads no torch, so a parent process stays small."""

from collections.abc import Callable
from dataclasses import dataclass, field

from learner.gate import GatePolicy
from learner.recipe import PerformanceFlags, Recipe

Progress = Callable[[str, int, int, float], None]  # phase, step, steps, loss


@dataclass(frozen=True, slots=True)
class LearnPolicy:
    """Everything a learning run can be told; public."""

    recipe: Recipe = field(default_factory=Recipe)
    gate: GatePolicy = field(default_factory=GatePolicy)
    flags: PerformanceFlags = field(default_factory=PerformanceFlags)
    strengths: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6)  # tried in turn: share of the way from old adapter to new
    slice_size: int = 120  # of the owner's items in a protected slice, the newest
    probe_size: int = 240  # of the base's own pairs that judge, the first
    trial_share: float = 0.0  # of the requests, that a new adapter answers until it has proved itself; 0: all at once
    replay_size: int = 1200  # examples to replay from in one run, a third of them the owner's own
