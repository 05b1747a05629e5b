"""Files written so that a crash leaves the old content or the new, never a mixture.

All files are created 0600 and never through a symbolic link. Nothing here encrypts: what must not be
readable is sealed before it reaches this module.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from store.errors import CorrigibleError, UsageError

PARTIAL = ".partial-"


def private_folder(path: Path, *, tighten: bool = True) -> None:
    """Make `path` a folder of mode 0700, with its parents.

    Args:
        path: the folder.
        tighten: also take others' rights on a folder that was there before.

    Raises:
        UsageError: `path` is a symbolic link or not a folder.
        CorrigibleError: it cannot be made (code ``read_only``).
    """
    if path.is_symlink():
        raise UsageError(f"The folder {path.name} is a symbolic link.", hint="Put a real folder there.", code="symlink")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if tighten and path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            f"There is a file where the folder {path.name} should be.", hint="Move it away.", code="not_a_folder"
        ) from None
    except OSError as error:
        raise unwritable(error) from None


def unwritable(error: OSError) -> CorrigibleError:
    """Turn an operating-system error into one a person can act on; it carries no file content."""
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return CorrigibleError(
            "The disk is full; nothing was changed.", hint="Free some space and repeat.", code="disk_full"
        )
    if error.errno in (1, 13, 30):  # EPERM, EACCES, EROFS
        return CorrigibleError(
            f"The store's folder cannot be written ({reason.lower()}).",
            hint="Check the owner and mode of the folder, or point CORRIGIBLE_HOME elsewhere.",
            code="read_only",
        )
    return CorrigibleError(
        f"Writing to the disk failed ({reason.lower()}).", hint="Check the disk, then repeat.", code="io_error"
    )


def sync_folder(path: Path) -> None:
    """Make renames and unlinks inside `path` durable."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_private(path: Path) -> int:
    """Create `path` (0600, must not exist) and return its descriptor, open for reading and writing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o600)


def write_atomic(path: Path, chunks: Iterable[bytes]) -> None:
    """Write `chunks` to `path`: temporary name, fsync, rename, fsync of the folder.

    Raises:
        CorrigibleError: the disk refused (``disk_full``, ``read_only``, ``io_error``); `path` is as before.
    """
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    try:
        with os.fdopen(create_private(partial), "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def clear_partials(folder: Path, *, older: float = 0.0) -> None:
    """Remove what a crashed `write_atomic` left in `folder`.

    Args:
        older: seconds since the last write to it; what is younger another process may still be writing.
    """
    for partial in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime >= older:
                partial.unlink()


def shred(path: Path) -> None:
    """Overwrite `path` once with random bytes, then unlink it; missing is fine.

    On flash and copy-on-write file systems the overwrite is best effort: what protects deleted data is that
    it was encrypted and its key is gone.
    """
    try:
        with path.open("r+b") as file:
            size = path.stat().st_size
            file.write(secrets.token_bytes(size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
