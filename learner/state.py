"""What the learner is doing right now, for whoever asks from another process; holds no word of the owner's.

A small file in the runtime folder, replaced whole. It is believed only while the learner's lock is held.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Literal

from store.paths import Home


@dataclass(frozen=True, slots=True)
class State:
    """One moment; times in seconds since the epoch."""

    state: Literal["waiting", "running", "paused"]
    code: str = ""  # of the reason to wait or pause, see `conditions.Code`
    reason: str = ""
    next_look: float | None = None
    since: float | None = None  # when the run began
    phase: str = ""
    step: int = 0
    steps: int = 0
    threads: int = 0


def publish(home: Home, state: State) -> None:
    """Let others see `state`; a full disk only means that they do not."""
    path = home.runtime / "learner.json"
    fresh = path.with_name("learner.json.new")
    with contextlib.suppress(OSError):
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
        fresh.replace(path)


def withdraw(home: Home) -> None:
    """The learner has ended."""
    (home.runtime / "learner.json").unlink(missing_ok=True)


def read(home: Home) -> State | None:
    """Return what was published last; None when nothing readable was."""
    try:
        return State(**json.loads((home.runtime / "learner.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
