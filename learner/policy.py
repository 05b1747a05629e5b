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
    restraints: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # weight of the base's skills in merging, in turn
    held_size: int = 400  # of the base's own pairs, never those that judge, that say what to hold
    slice_size: int = 120  # of the owner's items in a protected slice, the newest
    protect_base: bool = True  # whether the base's own pairs are replayed, held to and judged at all
    trial_share: float = 0.0  # of the requests, that a new adapter answers until it has proved itself; 0: all at once
    replay_size: int = 1200  # examples to replay from in one run, a third of them the owner's own
