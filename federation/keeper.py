"""Keeps child processes running: starts them, starts them again when they end, ever later when they end at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from federation.processes import Child, stop

FIRST_WAIT = 1.0  # seconds before the first restart
LONGEST_WAIT = 30.0
STEADY = 60.0  # seconds after which a child counts as having come up

Tell = Callable[[str, str], None]  # name of a child, what happened


@dataclass(slots=True)
class _Watched:
    """One child and its luck so far."""

    start: Callable[[], Child]
    child: Child | None = None
    since: float = 0.0
    wait: float = FIRST_WAIT
    due: float = 0.0  # not before this moment


@dataclass(slots=True)
class Keeper:
    """Children by name, in the order in which they start.

    Args:
        starts: how to start each.
        tell: hears of every start and end.
    """

    starts: Mapping[str, Callable[[], Child]]
    tell: Tell = lambda _name, _what: None
    _watched: dict[str, _Watched] = field(init=False)

    def __post_init__(self) -> None:
        self._watched = {name: _Watched(start) for name, start in self.starts.items()}

    def tend(self) -> list[str]:
        """Start what is due; return the names of what had ended since the last look."""
        now, ended = time.monotonic(), []
        for name, one in self._watched.items():
            if one.child is not None and not one.child.alive():
                self.tell(name, f"ended with code {one.child.process.returncode}")
                stop([one.child], grace=0.0)
                one.wait = FIRST_WAIT if now - one.since > STEADY else min(2 * one.wait, LONGEST_WAIT)
                one.child, one.due = None, now + one.wait
                ended.append(name)
            if one.child is None and now >= one.due:
                one.child, one.since = one.start(), now
                self.tell(name, f"started as process {one.child.process.pid}")
        return ended

    def running(self) -> dict[str, int]:
        """Return name -> process id of what runs now."""
        return {name: one.child.process.pid for name, one in self._watched.items() if one.child and one.child.alive()}

    def close(self) -> None:
        """End all, last started first; they may be started again by `tend`."""
        stop([one.child for one in reversed(self._watched.values()) if one.child is not None])
        for one in self._watched.values():
            one.child, one.due, one.wait = None, 0.0, FIRST_WAIT
