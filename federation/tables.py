"""The tables of a fleet server's state, and an engine on them: SQLite or PostgreSQL, whichever the URL names.

SQLite keeps its rollback journal (no write-ahead log, whose reset is broken in the versions Python ships) with full
synchronisation: a server writes a handful of rows a round. Flower's node ids do not fit a signed 64-bit column, so
they are kept as text. Errors of the drivers leave here as the program's own, without statement parameters.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.pool import NullPool

from store.errors import CorrigibleError, IntegrityError, Locked, NetworkError, UsageError
from store.files import unwritable

BUSY_SECONDS = 30.0
FIRST_START = 0x666C656574  # number of the lock that whoever makes the tables holds

metadata = MetaData()

nodes = Table(
    "nodes",
    metadata,
    Column("device", Text, primary_key=True),  # hex of the device's Ed25519 public key: one vote per key
    Column("node_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
rounds = Table(
    "rounds",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("begun", Double, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("secret", Text, nullable=False),  # hex; the devices' nonces follow from it
    Column("report", Text, nullable=False),  # JSON
)
releases = Table(
    "releases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("time", Double, nullable=False),
)
switches = Table("switches", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("event", Text, nullable=False),
    Column("facts", Text, nullable=False),  # JSON
    Column("hash", Text, nullable=False),
)


def open_engine(url: str) -> Engine:
    """Return an engine on the state at `url`, its tables made when absent.

    Raises:
        UsageError: no such kind of database, or its driver is not installed.
        NetworkError, IntegrityError, Locked, CorrigibleError: as `guarded` says.
    """
    try:
        engine = create_engine(url, hide_parameters=True, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise UsageError(
            "The fleet's database cannot be used as named.",
            hint="Use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME (`pip install corrigible[postgres]`).",
            code="state_url",
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _take_write_lock)
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":  # two servers may start at once
            connection.execute(select(func.pg_advisory_xact_lock(FIRST_START)))
        metadata.create_all(connection)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction; on SQLite it holds the write lock from its start.

    Raises:
        UsageError: a row would appear twice (code ``twice``).
        NetworkError, IntegrityError, Locked, CorrigibleError: as `guarded` says.
    """
    with guarded(), engine.begin() as connection:
        yield connection


@contextmanager
def guarded() -> Iterator[None]:
    """Turn what the drivers raise into the program's own errors.

    Raises:
        UsageError: a row would appear twice (code ``twice``).
        Locked: other processes kept the database busy for too long.
        NetworkError: the database server is away (code ``state_unreachable``).
        IntegrityError: the file is not a database, or another program's.
        CorrigibleError: the disk is full or cannot be written.
    """
    try:
        yield
    except ConstraintError:
        raise UsageError("The fleet's state holds this entry already.", code="twice") from None
    except DBAPIError as error:
        raise _translated(error) from None
    except SQLAlchemyError as error:
        raise IntegrityError(
            f"The fleet's state cannot be read ({type(error).__name__}).", code="fleet_state"
        ) from None


def _translated(error: DBAPIError) -> CorrigibleError:
    """What a driver's error means to an operator."""
    if not isinstance(error.orig, sqlite3.Error):
        return NetworkError(
            "The fleet's database does not answer.", hint="Start it; nothing was lost.", code="state_unreachable"
        )
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Locked("Another process keeps the fleet's state busy.", hint="Try again.")
    if name.startswith("SQLITE_FULL"):
        return unwritable(OSError(errno.ENOSPC, ""))
    if name.startswith(("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return unwritable(OSError(errno.EROFS if "READONLY" in name else errno.EIO, ""))
    return IntegrityError("The fleet's state is damaged.", hint="Restore fleet.db from a backup.", code="fleet_state")


def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
    """Durable commits; transactions begin when we say so."""
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _take_write_lock(connection: Connection) -> None:
    """Writers queue at the start of their transaction instead of failing at its end."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
