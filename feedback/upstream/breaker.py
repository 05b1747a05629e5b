"""A circuit breaker: after a few failures in a row nobody is asked for a while, then one is let through to see."""

import time
from collections.abc import Callable

FAILURES = 3
PAUSE = 30.0  # seconds


class Breaker:
    """Counts failures; `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Nobody is to be asked now."""
        return self._failures >= FAILURES and self._clock() < self._until

    def allow(self) -> bool:
        """Whether to ask; after the pause lets one caller through and holds the others back meanwhile."""
        if self.open:
            return False
        if self._failures >= FAILURES:
            self._until = self._clock() + PAUSE
        return True

    def succeeded(self) -> None:
        """All is well again."""
        self._failures = 0

    def failed(self) -> None:
        """One more failure."""
        self._failures += 1
        self._until = self._clock() + PAUSE
