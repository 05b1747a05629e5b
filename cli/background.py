"""Who holds a named lock of the store: how `status` sees the background learner and `learner stop` ends it."""

from pathlib import Path

from store.locks import holders


def holder(lock: Path) -> int | None:
    """Return the process that holds the lock file, None when nobody does."""
    return next(iter(holders(lock)), None)
