"""Locks between processes, released by the kernel when their holder dies.

Two uses: named locks (one learner, one daemon), and the lock on the store itself, which every open store
holds shared and which rotation, restore and wipe take alone.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from store.errors import Locked
from store.files import unwritable

RETRY_SECONDS = 0.005


class FileLock:
    """An advisory lock on one file; a context manager.

    Args:
        path: the lock file, created 0600 when missing and never removed.
        what: what is busy, for the message ("the learner").
        shared: several holders may share it.
        patience: seconds to wait for it.

    Raises:
        Locked: on entering, when another process (or another lock object) holds it.
    """

    def __init__(self, path: Path, what: str, *, shared: bool = False, patience: float = 0.0) -> None:
        self._path = path
        self._what = what
        self._shared = shared
        self._patience = patience
        self._handle: int | None = None

    def acquire(self) -> "FileLock":
        """Take the lock now or raise `Locked`."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise unwritable(error) from None
        if not self._taken(handle):
            os.close(handle)
            who = " and ".join(map(str, holders(self._path)))
            raise Locked(
                f"Another process is using {self._what}.",
                hint=f"Wait for process {who} or stop it." if who else "Wait for it or stop it.",
                code="busy",
            )
        self._handle = handle
        if not self._shared:
            with contextlib.suppress(OSError):  # on a full disk the number is missing; the lock holds
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
        return self

    def _taken(self, handle: int) -> bool:
        """Try until patience ends."""
        until = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(RETRY_SECONDS)

    def upgrade(self) -> bool:
        """Turn a shared lock into the only one if no other process shares it; False and still shared if one does."""
        if self._handle is None:
            return False
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        return True

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        if self._handle is None:
            return
        if not self._shared:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
        os.close(self._handle)
        self._handle = None

    def __enter__(self) -> "FileLock":
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holders(path: Path) -> list[int]:
    """Process ids that hold the lock file at `path`, as far as this system tells.

    Linux lists all of them. Elsewhere a sole holder is known by the number it wrote, and sharers are not.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return []
    try:
        listed = _listed(os.fstat(handle))
        return _written(handle) if listed is None else listed
    finally:
        os.close(handle)


def _listed(info: os.stat_result) -> list[int] | None:
    """Who holds a lock on this file in the kernel's own list; None where there is no such list."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    taken = [line.split() for line in lines if " FLOCK " in line and "->" not in line]
    return sorted({int(words[4]) for words in taken if words[5] == place and int(words[4]) > 0})


def _written(handle: int) -> list[int]:
    """The number in the file, unless the lock is free: then its writer is gone."""
    number = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return [int(number)] if number.isdigit() else []
    return []
