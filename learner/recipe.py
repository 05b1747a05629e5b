"""Settings of a learning run: what affects the adapter (`Recipe`) apart from what only affects speed.

All values are public; none is derived from what a user wrote.
"""

from dataclasses import dataclass, replace
from typing import Literal

# How the base's weights lie in memory: float32; in the floating type that is multiplied; in whole numbers of 8 bits; as
# in its file. "fast" is int8 where that is multiplied faster, else compact.
Hold = Literal["float32", "compact", "int8", "blocks", "fast"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a personal adapter is trained; measured in docs/decisions/0006-many-different-replays.md."""

    rank: int = 8
    alpha: float = 16.0
    batch: int = 16  # examples per step
    passes: float = 4.0  # times each correction is seen in one run
    min_steps: int = 80
    max_steps: int = 80
    lr: float = 4e-3  # Adam's peak rate; LoRA on a model of a few million parameters
    warmup: float = 0.1  # share of the steps
    replay_share: float = 0.75  # part of each run spent on what must not be forgotten
    kl_weight: float = 0.9  # replay loss: this much KL to the reference, the rest cross-entropy
    changed_weight: float = 2.0  # loss weight of answer tokens the correction changed
    preference_weight: float = 0.0  # of DPO on (refused, corrected), beside cross-entropy
    rating_weight: float = 0.0  # of KTO on thumbs
    beta: float = 0.1  # of both: how strongly they hold the adapter to the reference
    max_tokens: int = 512  # longer examples are left out
    freeze_a: bool = False  # only B learns, as in a shared adapter
    settle: float = 0.5  # as much of the steps again with B alone, behind an A that is held to the base
    settle_rate: float = 0.5  # of `lr`, then
    settle_restraint: float = 1.0  # how A is held: weight of the base's skills in merging
    seed: int = 0

    @property
    def settled(self) -> "Recipe":
        """The second part of a training."""
        return replace(
            self, freeze_a=True, lr=self.lr * self.settle_rate, passes=self.passes * self.settle,
            min_steps=round(self.min_steps * self.settle), max_steps=round(self.max_steps * self.settle),
        )  # fmt: skip

    def steps(self, corrections: int) -> int:
        """Return the number of steps of one part on `corrections` examples."""
        per_step = self.batch * (1 - self.replay_share)
        return int(min(self.max_steps, max(self.min_steps, round(self.passes * corrections / per_step))))

    def all_steps(self, corrections: int) -> int:
        """Return the number of steps of both parts."""
        return self.steps(corrections) + self.settled.steps(corrections)


@dataclass(frozen=True, slots=True)
class PerformanceFlags:
    """What may be changed without changing what is learned."""

    threads: int = 1
    micro_batch: int = 32  # examples per forward pass where nothing is updated
    hold: Hold = "fast"  # "blocks" where memory is short
    recompute: bool = False  # keep less of a step and compute it again, where memory is shorter still
