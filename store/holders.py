"""Which processes have the store open, and asking them to let go of its key.

A process with the store open holds a shared lock on one file, so Linux can say who they are. Elsewhere only the
holders of named locks are known: they write their number into their lock file.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from store.errors import Locked
from store.locks import FileLock, holders
from store.paths import Home

PATIENCE = 10.0  # seconds a process may take to end
LOOK_SECONDS = 0.05


def users(home: Home) -> list[int]:
    """Process ids of all others that have the store open or hold one of its named locks."""
    locks = [home.lock("store"), *sorted(home.state.glob("job-*.lock"))]
    return sorted({process for lock in locks for process in holders(lock)} - {os.getpid()})


def end_users(home: Home, patience: float = PATIENCE) -> list[int]:
    """End every other process that has the store open, and with it the keys in its memory; returns which.

    Each is asked (SIGTERM); records it acknowledged are safe whenever it ends.

    Raises:
        Locked: one of them does not end, belongs to somebody else, or cannot be found (``busy``).
    """
    ended = users(home)
    for process in ended:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGTERM)
    until = time.monotonic() + patience
    while not _nobody(home):
        if time.monotonic() > until:
            left = ", ".join(map(str, users(home)))
            raise Locked(
                "A process that has the store open does not end.",
                hint=f"End process {left} yourself." if left else "End whatever uses the store yourself.",
                code="busy",
            )
        time.sleep(LOOK_SECONDS)
    return ended


def _nobody(home: Home) -> bool:
    """Whether no process has the store open now."""
    path: Path = home.lock("store")
    if not path.exists():
        return True
    try:
        FileLock(path, "the store").acquire().release()
    except Locked:
        return False
    return True
