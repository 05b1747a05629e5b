"""SQLCipher behind SQLAlchemy; the only file that knows the driver.

WAL with synchronous=FULL: a commit that returned survives a power cut. Writers take the write lock at once
(BEGIN IMMEDIATE), so several processes queue instead of failing. Errors leave here as the program's own,
without statement parameters, so no text can travel in them.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlcipher3.dbapi2 as driver
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from store.errors import CorrigibleError, IntegrityError, Locked
from store.files import create_private, unwritable
from store.secret import Secret, wipe, wipe_text

BUSY_SECONDS = 30
CHECKPOINT_SECONDS = 2
LEAST_FREE = 64 * 1024  # bytes; the shared-memory file alone takes 32 KiB
CACHE_KIB = 32 * 1024  # at most, per connection; a page that spills is encrypted twice
OLDEST_SQLITE = (3, 51, 3)  # older ones can corrupt a WAL database with two connections (the WAL-reset bug)


def check_driver(sqlite: str = driver.sqlite_version) -> None:
    """Refuse an SQLite with the WAL-reset bug.

    Raises:
        CorrigibleError: `sqlite` is older than 3.51.3 (code ``sqlite_too_old``).
    """
    if tuple(map(int, sqlite.split("."))) < OLDEST_SQLITE:
        raise CorrigibleError(
            f"SQLite {sqlite} can corrupt a database that two processes use (the WAL-reset bug).",
            hint="Install sqlcipher3 0.6.4 or newer.",
            code="sqlite_too_old",
        )


def open_engine(path: Path, key: Secret, *, create: bool = False) -> Engine:
    """An engine on the encrypted database at `path`.

    Args:
        path: the database file.
        key: 32-byte raw key; a bytearray becomes the engine's own and is wiped when the engine is disposed of.
        create: make the file (0600) first; it must not exist.

    Raises:
        IntegrityError: the file is missing or does not decrypt.
        Locked: other processes kept the database busy for too long.
    """
    check_driver()
    if create:
        try:
            os.close(create_private(path))
        except OSError as error:
            raise unwritable(error) from None
    elif not path.is_file():
        raise IntegrityError(
            "The database file of this store is missing.", hint="Restore a backup.", code="store_missing"
        )
    elif not path.stat().st_size:  # SQLite would take it for a new database
        raise IntegrityError("The database file of this store is empty.", hint="Restore a backup.", code="store_empty")

    own = _owned(key)
    return _engine(lambda: _connect(path, own), own, path.parent)


def _engine(connect: Callable[[], Any], key: bytearray, folder: Path) -> Engine:
    """An engine on what `connect` opens, which takes `key` along when it goes."""
    engine = create_engine(
        "sqlite://", module=driver, creator=connect, poolclass=QueuePool, pool_size=2, hide_parameters=True
    )
    engine.update_execution_options(folder=folder)
    event.listen(engine, "engine_disposed", lambda _: wipe(key))
    return engine


def _owned(key: Secret) -> bytearray:
    return key if isinstance(key, bytearray) else bytearray(key)


def _connect(path: Path, key: Secret) -> Any:  # noqa: ANN401 - the driver is untyped
    connection = driver.connect(str(path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _unlock(connection, key)
        connection.executescript(
            f"""PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            PRAGMA secure_delete = ON;
            PRAGMA foreign_keys = ON;
            PRAGMA cache_size = -{CACHE_KIB};
            PRAGMA busy_timeout = {BUSY_SECONDS * 1000};"""
        )
    except driver.Error:
        connection.close()
        raise
    return connection


def _unlock(connection: Any, key: Secret) -> None:  # noqa: ANN401 - the driver is untyped
    """Give the connection its raw key; the statement that said it is overwritten.

    Raises:
        Locked: the store was closed, which wiped the key.
    """
    if not any(key):
        raise Locked("The store was closed.", hint="Open it again.", code="closed")
    digits = key.hex()
    statement = f"""PRAGMA cipher_log_level = NONE; PRAGMA key = "x'{digits}'";"""
    try:
        connection.executescript(statement)
    finally:
        wipe_text(digits)
        wipe_text(statement)


def open_still(path: Path, key: Secret) -> Engine:
    """An engine on a database nobody writes to; creates no file beside it, so read-only media are fine.

    Raises:
        IntegrityError: the file is missing or does not decrypt.
    """
    check_driver()
    if not path.is_file():
        raise IntegrityError("The database file is missing.", hint="Use another backup.", code="store_missing")

    own = _owned(key)

    def connect() -> Any:  # noqa: ANN401 - the driver is untyped
        connection = driver.connect(f"file:{quote(str(path))}?immutable=1", uri=True, isolation_level=None)
        _unlock(connection, own)
        return connection

    return _engine(connect, own, path.parent)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reading; each statement sees a committed state.

    Raises:
        IntegrityError, Locked, CorrigibleError: as `translate` says.
    """
    with guarded(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, committed when the block ends and rolled back when it raises.

    Raises:
        IntegrityError, Locked, CorrigibleError: as `translate` says; then nothing was written.
    """
    with guarded(engine), engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


@contextmanager
def guarded(engine: Engine) -> Iterator[None]:
    """Let driver errors leave the block only as the program's own, with no parameters and no cause."""
    try:
        yield
    except (DBAPIError, driver.Error) as error:
        raise translate(error, engine.get_execution_options().get("folder")) from None
    except OSError as error:
        raise unwritable(error) from None


def translate(error: Exception, folder: Path | None = None) -> CorrigibleError:
    """The program's own error for one of the driver's; `folder` is where the database lies.

    SQLite calls a full disk an I/O error when a file it only maps cannot grow, so the disk itself is asked.
    """
    original = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(original, "sqlite_errorname", "") or ""
    words = str(original).lower()
    if "locked" in words or "busy" in name.lower():
        return Locked("Another process kept the store busy.", hint="Repeat in a moment.", code="busy")
    if "full" in words:
        return unwritable(OSError(28, ""))
    if "readonly" in words or "read-only" in words or "unable to open" in words:
        return unwritable(OSError(30, ""))
    if "disk i/o" in words:
        return unwritable(OSError(28 if folder and _full(folder) else 5, ""))
    if any(sign in words for sign in ("not a database", "malformed", "corrupt", "no such table", "hmac")):
        return IntegrityError(
            "The database is damaged or is not this store's.",
            hint="Run `corrigible doctor`; restore a backup if it says so.",
            code="store_corrupt",
        )
    return CorrigibleError(
        f"The database refused an operation ({type(original).__name__}).",
        hint="Run `corrigible doctor`.",
        code="database",
    )


def _full(folder: Path) -> bool:
    """Whether there is no room for a page of anything."""
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE
    except OSError:
        return False


def checkpoint(engine: Engine) -> bool:
    """Move the WAL into the database and empty it; False when a reader or writer stayed in the way."""
    with reading(engine) as connection:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {CHECKPOINT_SECONDS * 1000}")
        busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    return not busy


def damaged_pages(engine: Engine) -> list[str]:
    """What SQLCipher's page authentication and SQLite's structure check complain about; empty when sound.

    Checkpoint first: the page check reads the main file only.
    """
    with reading(engine) as connection:
        complaints = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA cipher_integrity_check")]
        if not complaints:
            rows = connection.exec_driver_sql("PRAGMA integrity_check(20)")
            complaints = [str(row[0]) for row in rows if row[0] != "ok"]
    return complaints


def versions(engine: Engine) -> dict[str, str]:
    """Versions of SQLite and SQLCipher in use."""
    with reading(engine) as connection:
        cipher = connection.exec_driver_sql("PRAGMA cipher_version").scalar_one()
    return {"sqlite": driver.sqlite_version, "sqlcipher": str(cipher)}
