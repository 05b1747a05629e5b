"""Who holds a named lock of the store: how `status` sees the background loop and `learn --stop` ends it."""

import fcntl
import os
from pathlib import Path


def holder(lock: Path) -> int | None:
    """Return the process that holds the lock file, None when nobody does.

    The kernel drops a lock with its holder, so a number left by a dead process is not believed.
    """
    try:
        handle = os.open(lock, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        number = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        if not number.isdigit():
            return None
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(number)
    finally:
        os.close(handle)
    return None
