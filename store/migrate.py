"""Brings a database to the newest schema, in one transaction, with alembic.

An older schema is backed up, encrypted, before anything is changed. Importing this module does not import
alembic: an up-to-date store never needs it.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine

from store.engine import reading, writing
from store.errors import CorrigibleError, IntegrityError
from store.files import sync_file, sync_folder
from store.schema import HEAD_REVISION


def revision(engine: Engine) -> str:
    """The schema revision of the database, empty when it has none."""
    with reading(engine) as connection:
        return _revision(connection)


def migrate(engine: Engine, backup: Path | None, *, target: str = HEAD_REVISION) -> None:
    """Upgrade to `target`, all or nothing; the caller holds the store alone.

    Args:
        engine: on the database to upgrade.
        backup: where to put an encrypted copy first (same key); None for a database that is still empty.
        target: revision to stop at.

    Raises:
        IntegrityError: the schema is newer than this program (``newer_schema``).
        CorrigibleError: a migration failed; the database is as before.
    """
    if backup is not None and not backup.exists():
        copy_database(engine, backup)
    with writing(engine) as connection:
        _upgrade(connection, target)


def check_known(found: str) -> None:
    """Raise IntegrityError when revision `found` is newer than this program."""
    if found > HEAD_REVISION:
        raise IntegrityError(
            f"The store has schema {found}, this program knows up to {HEAD_REVISION}.",
            hint="Update the program.",
            code="newer_schema",
        )


def copy_database(engine: Engine, target: Path) -> None:
    """Write a compact copy of the database under the same key to `target`, durably.

    Raises:
        CorrigibleError: the disk refused; `target` does not exist then.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    with reading(engine) as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(partial),))
    partial.chmod(0o600)
    sync_file(partial)
    partial.replace(target)
    sync_folder(target.parent)


def _revision(connection: Connection) -> str:
    known = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").scalar_one()
    if not known:
        return ""
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() or "")


def _upgrade(connection: Connection, target: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, target)
    except CommandError:
        raise CorrigibleError("The schema could not be upgraded; nothing was changed.", code="migration") from None
