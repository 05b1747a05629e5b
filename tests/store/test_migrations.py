"""Every older schema reaches the newest one, whole or not at all."""

import os
from pathlib import Path

import pytest

from store.anchor import Mark
from store.append import tail
from store.chain import content_hash, genesis, head_hash
from store.codec import encode
from store.engine import open_engine, open_still, reading, writing
from store.errors import IntegrityError, Locked
from store.generation import write_anchor
from store.keys import Keys, unlock
from store.migrate import migrate, revision
from store.paths import Home
from store.protectors import KeyFile
from store.records import Interaction
from store.schema import HEAD_REVISION, records
from store.store import Store
from tests.store.samples import interaction


def oldest(home: Home, rows: int) -> Keys:
    """A store as the first schema left it, with `rows` interactions."""
    Store.create(home, KeyFile()).close()
    keys = unlock(home)
    path = home.generation(1) / "store.db"
    path.unlink()
    engine = open_engine(path, keys.sub("database"), create=True)
    migrate(engine, None, target="r0001")
    key = keys.sub("ledger")
    head = genesis(key)
    with writing(engine) as connection:
        for seq in range(1, rows + 1):
            entry = encode(interaction(seq))
            content = content_hash(key, entry.kind, entry.body)
            head = head_hash(key, head, seq, entry.kind, content)
            connection.exec_driver_sql(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (seq, entry.id, entry.kind, entry.time, "", entry.body.decode(), content, head),
            )
    engine.dispose()
    write_anchor(home, 1, keys, Mark(rows, head.hex(), {"Interaction": rows} if rows else {}))
    return keys


@pytest.mark.parametrize("rows", [0, 1, 500])
def test_the_oldest_schema_opens_with_everything_in_it(home: Home, rows: int) -> None:
    """Rows, chain and anchor survive; what newer schemas add works for old rows, too."""
    keys = oldest(home, rows)
    with Store.open(home, keys) as store:
        assert store.count(Interaction) == rows
        assert not store.damage
        assert store.verify().ok
        assert len(store.search("question", limit=1000)) == rows if rows else True
        store.add(interaction(9999))
        assert store.search("9999")
        assert store.health().schema == HEAD_REVISION


def test_a_migrated_schema_equals_a_new_one(home: Home, tmp_path: Path) -> None:
    """There is one schema, however it came about, and the query table describes it."""
    other = Home.at(tmp_path / "other")
    Store.create(other, KeyFile()).close()
    Store.open(home, oldest(home, 3)).close()
    described = []
    for place in (home, other):
        engine = open_engine(place.generation(1) / "store.db", unlock(place).sub("database"))
        with reading(engine) as connection:
            described.append(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").all())
            columns = [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(records)")]
        engine.dispose()
    assert described[0] == described[1]
    assert columns == [column.name for column in records.columns]


def test_an_encrypted_backup_comes_first(home: Home) -> None:
    """The copy has the old schema and all rows, opens with the store's key only, and goes with the next removal."""
    keys = oldest(home, 20)
    with Store.open(home, keys) as store:
        copy = home.generation(1) / f"before-{HEAD_REVISION}.db"
        assert b"question" not in copy.read_bytes()
        engine = open_still(copy, keys.sub("database"))
        assert revision(engine) == "r0001"
        with reading(engine) as connection:
            assert tail(connection, b"")[0] == 20
        engine.dispose()
        store.remove(interaction(5).id)
        assert not copy.exists()


def test_a_newer_schema_is_left_alone(home: Home) -> None:
    """A store from a newer program is refused with the advice to update, and not touched."""
    Store.create(home, KeyFile()).close()
    keys = unlock(home)
    engine = open_engine(home.generation(1) / "store.db", keys.sub("database"))
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'r9999'")
    engine.dispose()
    before = (home.generation(1) / "store.db").read_bytes()
    with pytest.raises(IntegrityError) as caught:
        Store.open(home, keys)
    assert caught.value.code == "newer_schema"
    assert (home.generation(1) / "store.db").read_bytes() == before


def test_migration_waits_for_nobody(home: Home) -> None:
    """While another process has the store open the upgrade is refused, not forced."""
    keys = oldest(home, 5)
    from store.generation import shared

    with shared(home), pytest.raises(Locked):
        Store.open(home, keys)
    Store.open(home, keys).close()


@pytest.mark.parametrize("statement", range(1, 9))
def test_a_crash_in_the_middle_leaves_the_old_schema(home: Home, statement: int) -> None:
    """Killed before its n-th statement, the migration never happened; the next opening does it."""
    keys = oldest(home, 50)
    child = os.fork()
    if child == 0:
        _die_at(home, keys, statement)
    os.waitpid(child, 0)
    engine = open_engine(home.generation(1) / "store.db", keys.sub("database"))
    found = revision(engine)
    engine.dispose()
    assert found in ("r0001", HEAD_REVISION)
    with Store.open(home, keys) as store:
        assert store.count(Interaction) == 50
        assert store.verify().ok
        assert len(store.search("question", limit=99)) == 50


def _die_at(home: Home, keys: Keys, statement: int) -> None:
    """Migrate, and kill this process before the given statement of the migration."""
    from sqlalchemy import event

    engine = open_engine(home.generation(1) / "store.db", keys.sub("database"))
    seen = 0

    @event.listens_for(engine, "before_cursor_execute")
    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen >= statement:
            os.kill(os.getpid(), 9)

    migrate(engine, None)
    os._exit(0)
