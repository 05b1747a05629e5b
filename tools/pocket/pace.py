"""Chooses how many threads torch uses while training runs, by measured speed.

On a busy machine two threads are slower than one, since every parallel region waits for the one that was put aside.
"""

import os
from collections import deque

import torch


class Pace:
    """Tries one thread and all cores for a step each, keeps the faster, and tries again later, ever more rarely."""

    def __init__(self, *, fixed: bool = False) -> None:
        """`fixed`: always all cores, so that a run can be repeated exactly."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._counts = [cores] if fixed else sorted({1, cores})
        self._plan = deque([*[self._counts[0]] * 10, *self._counts[1:]])
        self._speed: dict[int, float] = {}
        self._hold = 20

    def begin(self) -> None:
        """Sets the threads for the next step."""
        torch.set_num_threads(self._plan[0])

    def end(self, tokens: int, seconds: float) -> None:
        """Notes what the step achieved."""
        threads = self._plan.popleft()
        self._speed[threads] = tokens / seconds
        if not self._plan:
            best = max(self._speed, key=self._speed.__getitem__)
            others = [count for count in self._counts if count != best]
            self._plan.extend([*[best] * self._hold, *others])
            self._hold = min(2 * self._hold, 160)
