"""Keys: every rung of the ladder, the right error for every wrong key, and changes that survive a crash."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from store.errors import CorrigibleError, IntegrityError, Locked, NotInitialised, UsageError, WrongKey
from store.keychange import change_protector, rotate
from store.keys import Keys, forbid_core_dumps, key_status, unlock
from store.paths import Home
from store.protectors import Argon2Cost, KeyFile, OsKeyring, Passphrase, Protector, SystemdCredential
from store.records import Interaction
from store.secret import derive
from store.store import Store
from tests.store.samples import interaction

SMALL = Argon2Cost.small()


class DeskKeyring(KeyringBackend):
    """A keyring as a desktop has one, for this test process only."""

    priority = -1.0  # type: ignore[assignment]  # the library finds the class by itself and must not prefer it

    def __init__(self) -> None:
        super().__init__()
        self.priority = 5.0  # type: ignore[assignment]
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture
def desk() -> Iterator[DeskKeyring]:
    """The machine has a keyring."""
    before, ours = keyring.get_keyring(), DeskKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("rung", ["keyring", "systemd", "passphrase", "file"])
def test_each_rung_of_the_ladder_opens_its_store(rung: str, tmp_path: Path) -> None:
    """Create, unlock in a fresh start, read back; key.json names the rung and holds no key."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "corrigible-key").write_bytes(os.urandom(32))
    home = Home.at(tmp_path / "home", credentials)
    rungs: dict[str, Protector] = {
        "keyring": OsKeyring(),
        "systemd": SystemdCredential(),
        "passphrase": Passphrase("a b c d", SMALL),
        "file": KeyFile(),
    }
    with Store.create(home, rungs[rung]) as store:
        store.add(interaction(1))
    keys = unlock(home, passphrase=lambda: "a b c d")
    with Store.open(home, keys) as store:
        assert store.all(Interaction) == [interaction(1)]
    body = home.key_file.read_text()
    assert json.loads(body)["backend"] == rung == key_status(home).backend
    assert keys.export().hex() not in body
    assert base64.b64encode(keys.export()).decode() not in body
    assert bool(key_status(home).warning) == (rung == "file")


def test_all_key_material_is_private_to_the_owner(tmp_path: Path) -> None:
    """Every file is 0600 and every folder 0700, whatever the umask."""
    before = os.umask(0o000)
    try:
        with Store.create(Home.at(tmp_path / "home"), KeyFile()) as store:
            store.add(interaction(1))
            store.put_artefact(b"x")
            modes = {path: path.stat().st_mode & 0o777 for path in [tmp_path / "home", *(tmp_path / "home").rglob("*")]}
    finally:
        os.umask(before)
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_wrong_key_and_damaged_key_file_are_told_apart(home: Home) -> None:
    """A wrong passphrase is 12, a damaged key.json is 13, none at all is 10, none asked for is 11."""
    with pytest.raises(NotInitialised):
        unlock(home)
    Store.create(home, Passphrase("right", SMALL)).close()
    with pytest.raises(WrongKey) as wrong:
        unlock(home, passphrase=lambda: "wrong")
    with pytest.raises(Locked) as locked:
        unlock(home)
    assert (wrong.value.exit_code, locked.value.exit_code) == (12, 11)
    whole = home.key_file.read_bytes()
    for position in range(0, len(whole), 7):
        home.key_file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(CorrigibleError) as damaged:
            unlock(home, passphrase=lambda: "right")
        assert damaged.value.exit_code == 13
    home.key_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError):
        unlock(home, passphrase=lambda: "right")


def test_a_key_of_another_store_is_refused_before_the_database_is_touched(home: Home) -> None:
    """The key-check value says wrong key; without it SQLCipher would say damaged."""
    Store.create(home, KeyFile()).close()
    with pytest.raises(WrongKey):
        Store.open(home, Keys.generate())
    with pytest.raises(WrongKey):
        Keys.from_bytes(b"short")


def test_a_newer_key_file_says_update(home: Home) -> None:
    """The version is looked at before anything else."""
    Store.create(home, KeyFile()).close()
    body = json.loads(home.key_file.read_text())
    body["version"] = 99
    home.key_file.write_text(json.dumps(body))
    with pytest.raises(IntegrityError) as caught:
        unlock(home)
    assert caught.value.code == "newer_schema"


def test_missing_guards_say_which(tmp_path: Path, desk: DeskKeyring) -> None:
    """A lost key file, an emptied keyring and an absent credential are locked, each with its own words."""
    filed, ringed = Home.at(tmp_path / "a"), Home.at(tmp_path / "b")
    Store.create(filed, KeyFile()).close()
    Store.create(ringed, OsKeyring()).close()
    for path in filed.data.glob("insecure-*.key"):
        path.write_text("zz")
        with pytest.raises(IntegrityError):
            unlock(filed)
        path.unlink()
    desk.entries.clear()
    for home in (filed, ringed):
        with pytest.raises(Locked):
            unlock(home)


@pytest.mark.parametrize(
    ("protector", "code"),
    [
        (Passphrase("  ", SMALL), "empty_passphrase"),
        (Passphrase("x", Argon2Cost(8, 1, 1)), "bad_cost"),
        (SystemdCredential(), "no_credential"),
    ],
)
def test_guards_that_guard_nothing_are_refused(home: Home, protector: Protector, code: str) -> None:
    """No empty passphrase, no cheap stretching, no credential that is not there; and nothing is left behind."""
    with pytest.raises(UsageError) as caught:
        Store.create(home, protector)
    assert caught.value.code == code
    assert not home.key_file.exists()
    Store.create(home, KeyFile()).close()


def test_without_a_real_keyring_the_keyring_is_refused(home: Home) -> None:
    """The plain-text and null stand-ins of the keyring library are not taken for a keyring."""
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        with pytest.raises(UsageError) as caught:
            Store.create(home, OsKeyring())
    finally:
        keyring.set_keyring(before)
    assert caught.value.code == "no_keyring"


def test_subkeys_differ_and_are_stable() -> None:
    """One data key, four unrelated subkeys; HKDF-SHA256 as in RFC 5869 (its first test vector's parameters)."""
    keys = Keys.from_bytes(bytes(range(32)))
    subkeys = {keys.sub(purpose) for purpose in ("database", "artefacts", "ledger", "exports", "check")}
    assert len(subkeys) == 5
    assert derive(bytes(range(32)), "corrigible database") == keys.sub("database")


def test_a_wiped_key_is_gone() -> None:
    """After wiping neither the key nor its text form remains, and its uses say locked."""
    keys = Keys.from_bytes(bytes(range(32)))
    assert "00" not in repr(keys)
    keys.wipe()
    for use in (keys.export, keys.check, lambda: keys.sub("database")):
        with pytest.raises(Locked):
            use()


def test_a_closed_store_has_no_key_to_open_with(home: Home) -> None:
    """Using it after closing says closed; it is not taken for a damaged one."""
    store = Store.create(home, KeyFile())
    store.close()
    with pytest.raises(Locked) as caught:
        store.add(interaction(1))
    assert caught.value.code == "closed"


def test_an_unlocked_process_leaves_no_core() -> None:
    """After unlocking, core dumps are off and other processes of the same user may not attach."""
    forbid_core_dumps()
    script = (
        "import resource, ctypes; from store.keys import forbid_core_dumps; forbid_core_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("(0, 0) 0" if sys.platform == "linux" else done.stdout.strip())


def test_changing_the_passphrase_rewraps_only(home: Home) -> None:
    """The old one stops working, the new one works, the data key stays and no data is rewritten."""
    with Store.create(home, Passphrase("old", SMALL)) as store:
        store.add(interaction(1))
    keys = unlock(home, passphrase=lambda: "old")
    database = (home.generation(1) / "store.db").read_bytes()
    change_protector(home, keys, Passphrase("new", SMALL))
    with pytest.raises(WrongKey):
        unlock(home, passphrase=lambda: "old")
    assert unlock(home, passphrase=lambda: "new").export() == keys.export()
    assert (home.generation(1) / "store.db").read_bytes() == database


def test_moving_between_guards_leaves_the_old_one_empty(home: Home, desk: DeskKeyring) -> None:
    """From key file to keyring to passphrase: each time the guard before holds nothing any more."""
    Store.create(home, KeyFile()).close()
    change_protector(home, unlock(home), OsKeyring())
    assert not list(home.data.glob("insecure-*"))
    assert desk.entries
    change_protector(home, unlock(home), Passphrase("p", SMALL))
    assert not desk.entries
    with Store.open(home, unlock(home, passphrase=lambda: "p")):
        pass


def test_rotation_moves_everything_under_a_new_key(home: Home) -> None:
    """Records, removals, artefacts and the chain arrive whole; the old key opens nothing; old files are gone."""
    with Store.create(home, KeyFile()) as store:
        ids = store.add_all([interaction(number) for number in range(1200)])
        name = store.put_artefact(b"adapter" * 50_000)
        store.activate("personal", name, "better")
        store.remove(ids[7])
        old = unlock(home)
        with pytest.raises(Locked) as busy:
            rotate(home, old, KeyFile())
        assert busy.value.code == "busy"
    new = rotate(home, old, KeyFile())
    with pytest.raises(WrongKey):
        Store.open(home, old)
    assert unlock(home).export() == new.export()
    with Store.open(home, new) as store:
        assert store.verify().ok
        assert store.count(Interaction) == 1199
        assert store.artefact(name) == b"adapter" * 50_000
        assert [item.time for item in store.search("question 1100")] == [2100]
        store.add(interaction(5000))
        assert store.verify().ok
    assert sorted(path.name for path in home.data.iterdir()) == sorted(
        ["key.json", "store-2", next(home.data.glob("insecure-*")).name]
    )
    assert [path.name for path in home.state.glob("anchor-*")] == ["anchor-2"]


def test_a_damaged_store_is_not_rotated(home: Home) -> None:
    """Rotation would make a new chain and so hide the damage: refused, and the old key still opens."""
    with Store.create(home, KeyFile()) as store:
        store.add_all([interaction(number) for number in range(50)])
    home.anchor(1).unlink()
    with pytest.raises(IntegrityError) as caught:
        rotate(home, unlock(home), KeyFile())
    assert caught.value.code == "store_damaged"
    Store.open(home, unlock(home)).close()


@pytest.mark.usefixtures("desk")
def test_the_keyring_notices_when_both_files_are_rolled_back(home: Home) -> None:
    """An old database with its own old anchor deceives the anchor, but not the mark in the keyring."""
    with Store.create(home, OsKeyring()) as store:
        store.add_all([interaction(number) for number in range(10)])
    saved = {path: path.read_bytes() for path in [*home.generation(1).glob("store.db*"), home.anchor(1)]}
    with Store.open(home, unlock(home)) as store:
        store.add_all([interaction(number) for number in range(10, 15)])
    for path, data in saved.items():
        path.write_bytes(data)
    with Store.open(home, unlock(home)) as store:
        assert "11 to 15 are missing (5 Interaction)" in store.damage
        with pytest.raises(IntegrityError):
            store.require_whole()
        store.accept_damage()
        store.require_whole()
    with Store.open(home, unlock(home)) as store:
        assert not store.damage
        assert store.verify().ok
