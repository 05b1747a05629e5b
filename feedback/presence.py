"""The sign that a person is here: a file whose age says when they last asked, corrected or approved something.

Whoever serves people calls `mark`; the learner looks at `last` and makes room. The file is empty.
"""

import contextlib
import os

from store.paths import Home

NAME = "present"


def mark(home: Home) -> None:
    """Say that a person is here now; never fails, because nobody's request may fail for it."""
    path = home.runtime / NAME
    with contextlib.suppress(OSError):
        try:
            os.utime(path)
        except FileNotFoundError:
            path.touch(0o600)


def last(home: Home) -> float | None:
    """Return when `mark` was last called, seconds since the epoch; None: never."""
    try:
        return (home.runtime / NAME).stat().st_mtime
    except OSError:
        return None
