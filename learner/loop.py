"""The background loop: when enough new corrections have come, learn once in a child process, and look again later.

Holds no model. Conditions of the machine (battery, heat, load) are not looked at here.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learner.policy import LearnPolicy, Progress
from learner.worker import run_in_child
from store.base import StoreBase
from store.errors import CorrigibleError, Locked, NotEligible
from store.keys import Keys
from store.paths import Home
from store.records import Correction, Verdict
from store.retention import Keeper, RetentionPolicy


@dataclass(frozen=True, slots=True)
class Pace:
    """How eager the loop is."""

    corrections: int = 10  # new ones since the last run that start the next
    look_every: float = 30.0  # seconds between looks at the store


def watch(
    store: StoreBase,
    home: Home,
    keys: Keys,
    model: Path,
    policy: LearnPolicy,
    pace: Pace,
    *,
    stop: threading.Event,
    tell: Callable[[Verdict | CorrigibleError], None],
    progress: Progress | None = None,
    retention: RetentionPolicy = RetentionPolicy(),  # noqa: B008 - frozen
) -> None:
    """Learn whenever it is due until `stop` is set, and forget what the owner wants forgotten.

    Args:
        tell: given every verdict, and every reason why a run did not happen (another process learns, consent is
            withdrawn, the clock is wrong); the loop then waits for its next look.
        retention: how long each kind of record is kept.

    Raises:
        CorrigibleError: anything else that went wrong in a run.
    """
    keeper = Keeper(retention)
    while not stop.is_set():
        try:
            keeper.look(store, time.time())
            if waiting(store) >= pace.corrections:
                tell(run_in_child(home, keys, model, policy, progress=progress))
        except (Locked, NotEligible) as error:
            tell(error)
        stop.wait(pace.look_every)


def waiting(store: StoreBase) -> int:
    """Return how many corrections came after the last learning run."""
    last = store.last(Verdict)
    return store.count(Correction) if last is None else len(store.all(Correction, since=last.time))
