"""The store: SQLCipher underneath, records above.

A write is acknowledged after its commit is on disk; only then the anchor moves. This module is the daily
path; verification, rotation, retention, exchange and backups have their own.
"""

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from sqlalchemy import Connection

from store.anchor import Anchor, Ring
from store.append import Appended, append, blank
from store.artefacts import Artefacts
from store.base import (
    PREFIX_LETTERS,
    REMOVABLE,
    Report,
    StoreBase,
    check_fields,
    id_prefix,
    not_removable,
    one_match,
    words_of,
)
from store.chain import Removal
from store.codec import build, encode
from store.engine import checkpoint, open_engine, reading, versions, writing
from store.errors import CorrigibleError, IntegrityError
from store.files import clear_partials, shred, write_atomic
from store.generation import ARTEFACTS, DATABASE, alone, build_empty, refuse_existing, settle, shared
from store.guard import ANCHOR_MISSING, advance, inspect_at_open, seal_pages
from store.keys import Keys, check_keys, create_keys, key_status, read_key_record
from store.locks import FileLock
from store.migrate import check_known, copy_database, migrate, revision
from store.paths import Home
from store.protectors import Protector
from store.records import Interaction, Record, Slot
from store.recovery import accept
from store.schema import HEAD_REVISION
from store.secret import wipe
from store.verify import verify

BEFORE = "before-"
ABANDONED = 3600.0  # seconds after which a file that is still half written has lost its writer
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a store without any of its content."""

    records: dict[str, int]  # live ones, by kind
    bytes: int  # on disk
    schema: str
    sqlite: str
    sqlcipher: str
    damage: str
    warning: str  # about how the key is kept


class Store(StoreBase):
    """The owner's records, encrypted on disk. Make one with `create` or `open`; several processes may."""

    def __init__(self, home: Home, keys: Keys) -> None:
        """Use `create` or `open`; this opens what is already in order."""
        self.home = home
        with ExitStack() as undo:
            self._held = undo.enter_context(shared(home))
            record = read_key_record(home)
            check_keys(record, keys)
            self._folder = home.generation(record.generation)
            self._key = keys.secret("ledger")
            undo.callback(wipe, self._key)
            shelf = keys.secret("artefacts")
            undo.callback(wipe, shelf)
            self._artefacts = Artefacts(self._folder / ARTEFACTS, shelf)
            clear_partials(self._folder / ARTEFACTS, older=ABANDONED)
            self._anchor = Anchor(home.anchor(record.generation), self._key)
            undo.callback(self._anchor.close)
            self._engine = open_engine(self._folder / DATABASE, keys.secret("database"))
            undo.callback(self._engine.dispose)
            found = revision(self._engine)
            check_known(found)
            if found != HEAD_REVISION:
                raise _OlderSchema
            self._ring = Ring(record.params["entry"], self._key) if record.backend == "keyring" else None
            second = self._ring.read() if self._ring else None
            self._floor = inspect_at_open(self._engine, self._anchor, self._key, second).seq
            undo.pop_all()
        self._secrets = (self._key, shelf)
        self._open = True

    @classmethod
    def create(cls, home: Home, protector: Protector) -> Self:
        """Make a new, empty store and open it.

        Raises:
            UsageError: there is one already, or the protector cannot be used here.
            CorrigibleError: the folder cannot be written; nothing half made is ever used.
        """
        home.create()
        with alone(home):
            refuse_existing(home)
            keys = Keys.generate()
            build_empty(home, 1, keys)
            create_keys(home, protector, keys=keys, generation=1)
        try:
            return cls.open(home, keys)
        finally:
            keys.wipe()

    @classmethod
    def open(cls, home: Home, keys: Keys) -> Self:
        """Open the store; never asks for anything.

        Raises:
            NotInitialised: there is none.
            WrongKey: `keys` belong to another store.
            IntegrityError: the database is missing, damaged, foreign or from a newer program.
            Locked: it must be upgraded first and another process has it open.
        """
        record = read_key_record(home)
        check_keys(record, keys)
        home.create()
        settle(home, record)
        try:
            return cls(home, keys)
        except _OlderSchema:
            _upgrade(home, keys)
            return cls(home, keys)

    @property
    def damage(self) -> str:
        mark = self._anchor.read()
        return mark.broken if mark else ANCHOR_MISSING

    def add_all(self, records: Iterable[Record]) -> list[str]:
        entries = [encode(record) for record in records]
        if entries:
            with writing(self._engine) as connection:
                added = append(connection, self._key, entries, self._floor)
            self._acknowledge(added)
        return [entry.id for entry in entries]

    def get(self, kind: type[R], id: str) -> R:
        prefix = id_prefix(id)
        return one_match(self._select(kind, "id >= ? AND id < ?", (prefix, prefix + "g"), "LIMIT 2"), kind.__name__)

    def all(self, kind: type[R], *, since: float | None = None, limit: int | None = None) -> list[R]:
        where, values = ("time >= ?", (since,)) if since is not None else ("1", ())
        if limit is None:
            return self._select(kind, where, values, "ORDER BY seq")
        return self._select(kind, where, (*values, limit), "ORDER BY seq DESC LIMIT ?")[::-1]

    def count(self, kind: type[Record]) -> int:
        with reading(self._engine) as connection:
            row = connection.exec_driver_sql(
                "SELECT count(*) FROM records WHERE kind = ? AND body IS NOT NULL", (kind.__name__,)
            )
            return int(row.scalar_one())

    def last(self, kind: type[R], **equal: object) -> R | None:
        check_fields(kind, equal)
        where = " AND ".join(["1", *(f"json_extract(body, '$.{name}') IS ?" for name in equal)])
        found = self._select(kind, where, tuple(equal.values()), "ORDER BY seq DESC LIMIT 1")
        return found[0] if found else None

    def remove_all(self, ids: Iterable[str], *, why: str = "owner") -> list[str]:
        with writing(self._engine) as connection:
            doomed: dict[int, str] = {}
            for id in ids:
                doomed |= _with_dependents(connection, id_prefix(id))
            if not doomed:
                return []
            blank(connection, list(doomed))
            entry = encode(Removal(rows=tuple(doomed), why=why, time=time.time()))
            added = append(connection, self._key, [entry], self._floor)
        self._acknowledge(added)
        checkpoint(self._engine)
        for copy in self._folder.glob(f"{BEFORE}*"):  # copies made before a migration hold the text, too
            shred(copy)
        return list(doomed.values())

    def search(self, text: str, limit: int = 20) -> list[Interaction]:
        words = words_of(text)
        match = " ".join(f'"{word}"' for word in words) + ("*" if len(words[-1]) >= PREFIX_LETTERS else "")
        with reading(self._engine) as connection:
            rows = connection.exec_driver_sql(
                "SELECT iif(kind = 'Interaction', id, subject) FROM words JOIN records ON seq = words.rowid "
                "WHERE words MATCH ? ORDER BY words.rowid DESC",
                (match,),
            )
            found: dict[str, None] = {}
            for (id,) in rows:
                found[id] = None
                if len(found) >= limit:
                    break
            rows.close()
        return [item for id in found for item in self._select(Interaction, "id = ?", (id,))]

    def put_artefact(self, data: bytes) -> str:
        return self._artefacts.put(data)

    def artefact(self, digest: str) -> bytes:
        return self._artefacts.get(digest)

    def drop_artefact(self, digest: str) -> None:
        self._artefacts.drop(digest)

    def verify(self) -> Report:
        report = verify(self._engine, self._folder / DATABASE, self._anchor, self._key, self._artefacts)
        if report.problems and not self.damage:
            words = report.problems[0].message
            self._anchor.advance(lambda mark: replace(mark, broken=words) if mark else None)
        return report

    def accept_damage(self) -> Report:
        report = self.verify()
        if not report.ok or self.damage:
            accept(self._engine, self._anchor, self._key, report)
            self._mark_ring()
            for slot in get_args(Slot):
                self._drop_unreadable(slot)
        return report

    def health(self) -> Health:
        """What `status` and `doctor` show; reads no text and asks for no secret."""
        folder = self.home.generation(read_key_record(self.home).generation)
        with reading(self._engine) as connection:
            rows = connection.exec_driver_sql(
                "SELECT kind, count(*) FROM records WHERE body IS NOT NULL GROUP BY kind ORDER BY kind"
            )
            records = {str(kind): int(number) for kind, number in rows}
        return Health(
            records=records,
            bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            schema=revision(self._engine),
            **versions(self._engine),
            damage=self.damage,
            warning=key_status(self.home).warning,
        )

    def copy_to(self, database: Path, artefacts: Path) -> None:
        """Copy the database, compact and under its own key, and the sealed artefacts; for backups."""
        copy_database(self._engine, database)
        for path in self._artefacts.paths():
            write_atomic(artefacts / path.name, [path.read_bytes()])

    def lock(self, name: str) -> AbstractContextManager[object]:
        return FileLock(self.home.lock(f"job-{name}"), f"the {name} lock")

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._mark_ring()
        with suppress(CorrigibleError, OSError):  # a close that cannot tidy up loses nothing
            self._tidy()
        self._engine.dispose()
        self._anchor.close()
        self._held.release()
        wipe(*self._secrets)

    def _select(self, kind: type[R], where: str, values: Sequence[Any] = (), tail: str = "") -> list[R]:
        """Live records of `kind` that satisfy `where`."""
        with reading(self._engine) as connection:
            rows = connection.exec_driver_sql(
                f"SELECT body FROM records WHERE kind = ? AND body IS NOT NULL AND {where} {tail}",
                (kind.__name__, *values),
            )
            return [build(kind, json.loads(body)) for (body,) in rows]

    def _acknowledge(self, added: Appended | None) -> None:
        """Let the anchor follow a commit."""
        if added is not None:
            with suppress(CorrigibleError):  # the record is safe; an anchor that lags is caught up later
                advance(self._engine, self._anchor, added)
            if "Spend" in added.counts:
                self._mark_ring()

    def _tidy(self) -> None:
        """Empty the WAL and, when no other process has the store open, seal the database file."""
        mark = self._anchor.read()
        if mark and not mark.seals and checkpoint(self._engine) and self._held.upgrade():
            seal_pages(self._folder / DATABASE, self._anchor, self._key)

    def _mark_ring(self) -> None:
        """Let the keyring's anchor follow."""
        mark = self._anchor.read() if self._ring else None
        if self._ring and mark:
            self._ring.write(mark)

    def _drop_unreadable(self, slot: Slot) -> None:
        """Stop serving an adapter whose artefact is lost."""
        name = self.active(slot)
        try:
            if name is not None:
                self.artefact(name)
        except IntegrityError:
            self.activate(slot, None, "its artefact is lost")


class _OlderSchema(Exception):
    """The database must be upgraded first."""


def _upgrade(home: Home, keys: Keys) -> None:
    """Migrate an older schema, alone and after a backup."""
    with alone(home):
        generation = read_key_record(home).generation
        path = home.generation(generation) / DATABASE
        anchor = Anchor(home.anchor(generation), keys.sub("ledger"))
        anchor.advance(lambda mark: replace(mark, seals="") if mark else None)
        anchor.close()
        engine = open_engine(path, keys.secret("database"))
        try:
            migrate(engine, path.with_name(f"{BEFORE}{HEAD_REVISION}.db"))
        finally:
            engine.dispose()


def _with_dependents(connection: Connection, prefix: str) -> dict[int, str]:
    """Rows to blank when the owner removes the record with this id: itself and what speaks of it.

    Raises:
        UsageError: no record, several, or one of a ledger.
    """
    rows = connection.exec_driver_sql(
        "SELECT seq, id, kind FROM records WHERE id >= ? AND id < ? AND body IS NOT NULL LIMIT 2",
        (prefix, prefix + "g"),
    ).all()
    seq, id, kind = one_match(rows, "record")
    if kind not in REMOVABLE:
        raise not_removable(kind)
    hanging = connection.exec_driver_sql("SELECT seq, id FROM records WHERE subject = ?", (id,)).all()
    return {seq: id} | {row[0]: row[1] for row in hanging}
