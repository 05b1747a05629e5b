"""Damage is noticed, named, and stops learning until the owner accepts it."""

import os
import shutil
import time
from pathlib import Path

import pytest

from store.artefacts import Artefacts
from store.engine import writing
from store.errors import CorrigibleError, IntegrityError
from store.keychange import rotate
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Activation, Correction, Interaction
from store.recovery import salvage
from store.sealed import CHUNK, seal, unseal
from store.store import Store
from tests.store.samples import correction, interaction


def filled(home: Home, number: int = 40) -> Keys:
    """A closed store with `number` interactions, each corrected."""
    with Store.create(home, KeyFile()) as store:
        ids = store.add_all([interaction(index) for index in range(number)])
        store.add_all([correction(id, index) for index, id in enumerate(ids)])
    return unlock(home)


def crash_with_wal(home: Home, number: int = 20) -> None:
    """Write `number` interactions one by one in a child that dies without closing."""
    child = os.fork()
    if child == 0:
        store = Store.open(home, unlock(home))
        for index in range(number):
            store.add(interaction(1000 + index))
        os._exit(0)
    os.waitpid(child, 0)


def database(home: Home) -> Path:
    """The database file."""
    return home.generation(1) / "store.db"


def test_a_crash_without_close_is_not_damage(home: Home) -> None:
    """The WAL is taken up at the next opening and nothing is reported."""
    keys = filled(home)
    crash_with_wal(home)
    with Store.open(home, keys) as store:
        assert not store.damage
        assert store.count(Interaction) == 60
        assert store.verify().ok


def test_a_deleted_wal_is_reported_with_what_is_missing(home: Home) -> None:
    """The database alone looks fine; the anchor knows better, and learning stands still until accepted."""
    keys = filled(home)
    crash_with_wal(home)
    database(home).with_name("store.db-wal").unlink()
    with Store.open(home, keys) as store:
        assert store.damage == "Records 81 to 100 are missing (20 Interaction)."
        report = store.verify()
        assert report.missing == {"Interaction": 20}
        with pytest.raises(IntegrityError) as caught:
            store.require_whole()
        assert caught.value.code == "store_damaged"
        store.add(interaction(2000))
    with Store.open(home, keys) as store:
        assert "81 to 100" in store.damage
        accepted = store.accept_damage()
        assert ("missing", 81, 100) in [(found.code, found.first, found.last) for found in accepted.problems]
        store.require_whole()
        store.add(interaction(2001))
    with Store.open(home, keys) as store:
        assert not store.damage
        assert store.verify().ok
        assert store.count(Interaction) == 42


def test_an_older_copy_put_back_is_reported(home: Home) -> None:
    """Rolling the whole database back leaves the anchor ahead."""
    keys = filled(home)
    old = database(home).read_bytes()
    with Store.open(home, keys) as store:
        store.add(interaction(500))
        store.remove(interaction(3).id)
    database(home).write_bytes(old)
    with Store.open(home, keys) as store:
        assert store.damage.startswith("Records 81 to 82 are missing (1 Interaction, 1 Removal)")
        assert store.verify().problems


def test_a_missing_or_foreign_anchor_is_reported(home: Home, tmp_path: Path) -> None:
    """Deleting the anchor, or bringing another store's, does not pass for an intact store."""
    keys = filled(home)
    home.anchor(1).unlink()
    with Store.open(home, keys) as store:
        assert "anchor" in store.damage
    other = Home.at(tmp_path / "other")
    filled(other, 3)
    shutil.copy(other.anchor(1), home.anchor(1))
    with Store.open(home, keys) as store:
        assert "anchor" in store.damage
        store.accept_damage()
        assert not store.damage
    with Store.open(home, keys) as store:
        store.require_whole()


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_anchor_slot_costs_nothing(home: Home, slot: int) -> None:
    """One of the two slots may be garbage: the other holds the state before or after the last write."""
    keys = filled(home)
    raw = bytearray(home.anchor(1).read_bytes())
    raw[slot * 2048 : slot * 2048 + 512] = bytes(512)
    home.anchor(1).write_bytes(raw)
    with Store.open(home, keys) as store:
        assert not store.damage
        assert store.verify().ok


def test_flipped_bits_in_the_database_are_reported(home: Home) -> None:
    """One flip in each page: opening or verifying says damaged, every time."""
    keys = filled(home)
    whole, anchor = database(home).read_bytes(), home.anchor(1).read_bytes()
    for page in range(len(whole) // 4096):
        flipped = bytearray(whole)
        flipped[page * 4096 + (page * 37) % 4096] ^= 1 << (page % 8)
        database(home).write_bytes(flipped)
        with pytest.raises(IntegrityError):
            reported(home, keys)
        home.anchor(1).write_bytes(anchor)
    database(home).write_bytes(whole)
    reported(home, keys)


def reported(home: Home, keys: Keys) -> None:
    """Open and verify; raise IntegrityError for whatever is found."""
    with Store.open(home, keys) as store:
        report = store.verify()
        if not report.ok or store.damage:
            raise IntegrityError("found")


@pytest.mark.parametrize("kept", [0, 100, 4096, 8192, 20000])
def test_a_truncated_database_is_an_integrity_error(home: Home, kept: int) -> None:
    """Cut anywhere: 13, never a fresh empty store."""
    keys = filled(home)
    os.truncate(database(home), kept)
    with pytest.raises(IntegrityError) as caught:
        reported(home, keys)
    assert caught.value.exit_code == 13


def test_a_missing_database_is_not_made_anew(home: Home) -> None:
    """A vanished file or folder is damage, not a first start."""
    keys = filled(home)
    database(home).unlink()
    with pytest.raises(IntegrityError) as caught:
        Store.open(home, keys)
    assert caught.value.code == "store_missing"
    shutil.rmtree(home.generation(1))
    with pytest.raises(IntegrityError):
        Store.open(home, keys)


def test_a_foreign_sqlite_file_is_refused(home: Home) -> None:
    """An unencrypted SQLite file in place of ours is corruption with the right key, not a wrong key."""
    import sqlite3

    keys = filled(home)
    database(home).unlink()
    with sqlite3.connect(database(home)) as plain:
        plain.execute("CREATE TABLE records (seq)")
    plain.close()
    with pytest.raises(IntegrityError) as caught:
        Store.open(home, keys)
    assert caught.value.code == "store_corrupt"


def test_salvage_brings_out_what_can_be_read(home: Home) -> None:
    """With one page of rows destroyed the others move to a new generation; the loss is named and accepted."""
    keys = filled(home, 300)
    raw = bytearray(database(home).read_bytes())
    raw[20 * 4096 : 21 * 4096] = os.urandom(4096)
    database(home).write_bytes(raw)
    with Store.open(home, keys) as store, pytest.raises(IntegrityError) as caught:
        store.accept_damage()
    assert caught.value.code == "unreadable"
    with Store.open(home, salvage(home, keys, KeyFile())) as store:
        assert store.damage
        left = store.count(Interaction) + store.count(Correction)
        assert 500 < left < 600
        store.accept_damage()
        store.require_whole()
        assert store.verify().ok
        store.add(interaction(9999))
    with Store.open(home, unlock(home)) as store:
        assert store.verify().ok


def test_a_changed_search_index_is_reported_and_rebuilt(home: Home) -> None:
    """The index is checked against the records, and accepting rebuilds it."""
    keys = filled(home)
    with Store.open(home, keys) as store:
        with store._engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO words (words) VALUES ('delete-all')")
        assert [problem.code for problem in store.verify().problems] == ["search_index"]
        store.accept_damage()
        assert store.verify().ok
        assert store.search("question 7")


def test_a_row_changed_with_the_key_in_hand_is_reported(home: Home) -> None:
    """Even a valid page does not pass when its row does not fit the chain."""
    keys = filled(home)
    changes = [
        ("UPDATE records SET body = replace(body, 'answer 5', 'answer 6') WHERE seq = 6", "altered"),
        ("UPDATE records SET kind = 'Rating' WHERE seq = 6", "altered"),
        ("UPDATE records SET body = NULL WHERE seq = 6", "vanished"),
        ("DELETE FROM records WHERE seq = 6", "missing"),
        ("UPDATE records SET head = zeroblob(32) WHERE seq = 6", "altered"),
    ]
    for change, code in changes:
        with Store.open(home, keys) as store, store._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(change)
            connection.exec_driver_sql("PRAGMA query_only = 0")
            found = {problem.code for problem in _problems(store, connection)}
            assert code in found, change
            connection.rollback()


def _problems(store: Store, connection: object) -> list[object]:
    """The chain's flaws as seen from inside an open transaction."""
    from store.verify import chain_flaws, describe

    return [describe(flaw) for flaw in chain_flaws(connection, store._key)]  # type: ignore[arg-type]


def test_changed_artefacts_are_never_loaded(home: Home) -> None:
    """Flip, cut, swap, rename, half-written: each is refused and verify names the serving one."""
    with Store.create(home, KeyFile()) as store:
        data = os.urandom(3 * CHUNK + 17)
        name, other = store.put_artefact(data), store.put_artefact(b"other")
        store.activate("personal", name, "better")
        shelf = home.generation(1) / "artefacts"
        path, second = sorted(shelf.iterdir(), key=lambda file: -file.stat().st_size)
        whole = path.read_bytes()
        for position in range(0, len(whole), 3571):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(IntegrityError):
                store.artefact(name)
        for cut in (0, 10, 26, len(whole) - 1, len(whole) - CHUNK, 26 + CHUNK + 16):
            path.write_bytes(whole[:cut])
            with pytest.raises(IntegrityError):
                store.artefact(name)
        path.write_bytes(second.read_bytes())
        with pytest.raises(IntegrityError):
            store.artefact(name)
        assert "artefact_changed" in {problem.code for problem in store.verify().problems}
        path.unlink()
        assert "artefact_missing" in {problem.code for problem in store.verify().problems}
        store.accept_damage()
        assert store.active("personal") is None
        assert store.last(Activation) is not None
        assert store.verify().ok
        assert store.artefact(other) == b"other"


def test_bytes_put_again_replace_a_damaged_artefact(home: Home) -> None:
    """Overwritten by half, as a removal that was cut off leaves it: a release that is fetched anew serves again."""
    with Store.create(home, KeyFile()) as store:
        name = store.put_artefact(b"release" * 1000)
        (path,) = (home.generation(1) / "artefacts").iterdir()
        path.write_bytes(os.urandom(100) + path.read_bytes()[100:])
        assert store.put_artefact(b"release" * 1000) == name
        assert store.artefact(name) == b"release" * 1000


def test_a_half_written_artefact_is_never_visible(tmp_path: Path) -> None:
    """Whatever a crash leaves of the temporary file, the name does not exist."""
    shelf = Artefacts(tmp_path, bytes(32))
    (tmp_path / ".partial-1234").write_bytes(b"half")
    assert shelf.paths() == []
    assert len(shelf.put(b"whole")) == 71
    assert len(shelf.paths()) == 1


def test_what_a_killed_writer_left_goes_when_the_store_is_opened(store: Store) -> None:
    """What was half written an hour ago, learned weights perhaps; not what another process may be writing now."""
    shelf = store.home.generation(1) / "artefacts"
    old, new = shelf / ".partial-01", shelf / ".partial-02"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, times=(time.time() - 3601,) * 2)
    with Store.open(store.home, unlock(store.home)):
        assert not old.exists()
        assert new.exists()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_sealing_round_trips_and_binds_the_name(tmp_path: Path, size: int) -> None:
    """At and around chunk borders; another name or key opens nothing; nothing of the text shows."""
    data = b"canary text " * (size // 12 + 1)
    data = data[:size]
    path = tmp_path / "sealed"
    path.write_bytes(b"".join(seal([data[: size // 3], data[size // 3 :]], bytes(32), "name")))
    with path.open("rb") as file:
        assert b"".join(unseal(file, bytes(32), "name")) == data
    for key, name in ((bytes(32), "other"), (bytes([1]) * 32, "name")):
        with path.open("rb") as file, pytest.raises(IntegrityError):
            b"".join(unseal(file, key, name))
    assert b"canary" not in path.read_bytes()


def test_error_texts_hold_no_words_of_the_owner(home: Home) -> None:
    """A statement that fails inside the driver says its kind and nothing of what it carried."""
    with Store.create(home, KeyFile()) as store:
        store.add(interaction(1, "marmalade canary"))
        with store._engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE words")
        with pytest.raises(CorrigibleError) as caught:
            store.add(interaction(2, "marmalade canary"))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "marmalade" not in f"{seen!r}{seen.args}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def test_a_row_removed_under_its_former_name_is_no_damage(home: Home) -> None:
    """Removed rows used to be named by the hash of what they had held; such a store is whole, and can be moved."""
    with Store.create(home, KeyFile()) as store:
        ids = store.add_all([interaction(number) for number in range(4)])
        store.remove(ids[1])
        with writing(store._engine) as connection:
            connection.exec_driver_sql("UPDATE records SET id = 'removed:' || lower(hex(content)) WHERE body IS NULL")
        assert store.verify().ok
    with Store.open(home, rotate(home, unlock(home), KeyFile())) as store:
        assert store.verify().ok
        assert store.count(Interaction) == 3
