"""`key`, `backup`, `wipe`, `log import` and `doctor --bundle`: each way they end, on real stores."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.session import Session
from store.keys import unlock
from store.paths import Home
from store.protectors import Argon2Cost, Passphrase
from store.records import Consent, Interaction, Message, Spend
from store.store import Store
from tests.cli.helpers import Call

ROOT = Path(__file__).parents[2]
TEXT = "marmalade on the ceiling"


def said(number: int, text: str = TEXT) -> Interaction:
    """One answer as `chat` records it."""
    return Interaction(messages=(Message("user", text),), answer=f"a{number}", model="sha256:" + "0" * 64, time=1.0)


@pytest.fixture
def phrases(tmp_path: Path) -> dict[str, str]:
    """Files with passphrases."""
    for name, text in {"old": "the old four words", "new": "the new four words", "wrong": "no"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    return {name: str(tmp_path / name) for name in ("old", "new", "wrong")}


@pytest.fixture
def guarded(call: Call, home: Path, phrases: dict[str, str]) -> Call:
    """A store with one record, guarded by the passphrase `old`."""
    assert call("--passphrase-file", phrases["old"], "init").code == 0
    with Session(place=home, passphrase_file=Path(phrases["old"])).store() as store:
        store.add(said(1))
    return call


@pytest.fixture
def user(ready: Call, home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open and holds its key."""
    code = (
        "import sys, time; from pathlib import Path; from cli.session import Session\n"
        "with Session(place=Path(sys.argv[1])).store() as store, store.lock('daemon'):\n"
        "    print('open', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, home], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_key_status_says_who_guards_and_how_strongly(guarded: Call) -> None:
    """No secret is asked for; the cost of a passphrase is that of the issue's floor at least."""
    data = guarded("key", "status", "--json").data
    assert (data["backend"], data["warning"], data["in_use_by"]) == ("passphrase", "", [])
    assert data["cost"]["memory"] >= 19 * 1024
    assert "Argon2id" in guarded("key", "status").out


def test_a_passphrase_is_changed_and_the_old_one_stops(guarded: Call, phrases: dict[str, str]) -> None:
    """Right old one needed; afterwards the new one opens, the old one is exit 12, and the record is there."""
    change = ("key", "change-passphrase", "--new-passphrase-file", phrases["new"], "--json")
    assert guarded("--passphrase-file", phrases["wrong"], *change).code == 12
    assert guarded(*change).code == 11
    assert guarded("--passphrase-file", phrases["old"], *change).data["backend"] == "passphrase"
    assert guarded("--passphrase-file", phrases["old"], "status").code == 12
    assert guarded("--passphrase-file", phrases["new"], "log", "list", "--json").data["count"] == 1


def test_a_key_moves_to_another_guard(guarded: Call, phrases: dict[str, str], home: Path) -> None:
    """To a key file only when told twice, and with its warning; back under a passphrase the file is gone."""
    old = ("--passphrase-file", phrases["old"])
    assert guarded(*old, "key", "change-passphrase", "--key", "file").code == 2
    assert guarded(*old, "key", "change-passphrase", "--key", "file", "--insecure-key-file", "--json").data["warning"]
    assert len(list((home / "data").glob("insecure-*"))) == 1
    assert guarded("key", "change-passphrase").code == 2  # nobody to ask
    assert guarded("key", "change-passphrase", "--new-passphrase-file", phrases["new"]).code == 0
    assert not list((home / "data").glob("insecure-*"))


def test_systemd_hands_over_the_key(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a credential and no keyring `init` takes it unasked; without it every command is exit 11 with a hint."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "corrigible-key").write_bytes(os.urandom(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert call("init", "--json").data["key"] == {"backend": "systemd", "warning": ""}
    assert call("key", "rotate", "--json").data["generation"] == 2
    assert call("status").code == 0
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    result = call("status", "--json")
    assert (result.code, result.error["code"]) == (11, "locked")
    assert call("key", "status", "--json").data["backend"] == "systemd"


def test_rotation_keeps_everything_under_the_same_guard(guarded: Call, phrases: dict[str, str], home: Path) -> None:
    """A new generation under the same passphrase; the data key is another one."""
    old = ("--passphrase-file", phrases["old"])
    before = unlock(Home.at(home), passphrase=lambda: "the old four words").export()
    assert guarded("--passphrase-file", phrases["wrong"], "key", "rotate").code == 12
    assert guarded(*old, "key", "rotate", "--json").data == {"backend": "passphrase", "generation": 2, "warning": ""}
    assert unlock(Home.at(home), passphrase=lambda: "the old four words").export() != before
    assert guarded(*old, "log", "search", "marmalade", "--json").data["count"] == 1
    assert guarded(*old, "doctor", "--json").data["fail"] == 0


def test_lock_ends_whoever_has_the_key_in_memory(ready: Call, user: subprocess.Popen[str]) -> None:
    """While another process has the store, rotation and wiping are exit 11 and name it; `key lock` ends it."""
    assert ready("key", "status", "--json").data["in_use_by"] == [user.pid]
    for words in (
        ["key", "rotate"],
        ["key", "change-passphrase", "--key", "file", "--insecure-key-file"],
        ["wipe", "--yes"],
    ):
        result = ready(*words, "--json")
        assert (result.code, result.error["code"]) == (11, "busy"), words
        assert str(user.pid) in result.error["hint"]
    assert ready("key", "lock", "--json").data == {"ended": [user.pid], "backend": "file"}
    assert user.wait(10) == -signal.SIGTERM
    assert ready("key", "lock", "--json").data["ended"] == []
    assert ready("key", "rotate").code == 0


def test_key_commands_without_or_with_a_damaged_key_file(call: Call, home: Path) -> None:
    """Exit 10 without a store, 13 when key.json is damaged."""
    changing = ["key", "change-passphrase", "--key", "file", "--insecure-key-file"]
    every = [["key", "status"], ["key", "rotate"], ["key", "lock"], changing]
    for words in every:
        assert call(*words, "--json").error["code"] == "not_initialised", words
    assert call("init", "--key", "file", "--insecure-key-file").code == 0
    (home / "data" / "key.json").write_text("{}")
    for words in every:
        assert call(*words, "--json").error["code"] == "key_file_damaged", words


def spend() -> Spend:
    """One entry of the privacy ledger."""
    return Spend(
        run="r", unit="correction", noise_multiplier=1.0, sampling_rate=0.1, steps=1, clipping_norm=1.0, delta=1e-6,
        epsilon=1.0, total=1.0, time=5.0,
    )  # fmt: skip


def test_a_backup_is_made_checked_and_restored_elsewhere(ready: Call, tmp_path: Path, phrases: dict[str, str]) -> None:
    """A key file does not travel: the copy needs a passphrase of its own, and opens with it on another home."""
    with Session(place=Home.locate().root).store() as store:
        store.add(said(1))
    disk, own = str(tmp_path / "disk"), ("--backup-passphrase-file", phrases["new"])
    result = ready("backup", "create", disk, "--json")
    assert (result.code, result.error["code"]) == (2, "no_passphrase")
    assert "--backup-passphrase-file" in result.error["hint"]
    made = ready("backup", "create", disk, *own, "--json").data
    assert made["records"] == 3
    assert not any(TEXT.encode() in path.read_bytes() for path in Path(disk).rglob("*") if path.is_file())
    assert ready("backup", "verify", made["folder"], *own, "--json").data["problems"] == []
    wrong = ready("backup", "verify", made["folder"], "--backup-passphrase-file", phrases["wrong"], "--json")
    assert (wrong.code, wrong.error["code"]) == (12, "wrong_key")
    assert ready("backup", "verify", made["folder"]).code == 11
    other = ("--home", str(tmp_path / "other"))
    assert ready(*other, "backup", "restore", made["folder"], *own, "--json").data["records"] == 3
    assert ready(*other, "key", "status", "--json").data["backend"] == "passphrase"
    listed = ready(*other, "--passphrase-file", phrases["new"], "log", "list", "--json").data
    assert listed["interactions"][0]["request"] == TEXT


def test_a_restore_over_a_store_asks_and_keeps_the_ledgers(
    ready: Call, home: Path, tmp_path: Path, phrases: dict[str, str]
) -> None:
    """What was spent since the copy stays spent; without --replace, or without a yes, nothing is touched."""
    own = ("--backup-passphrase-file", phrases["new"])
    made = ready("backup", "create", str(tmp_path / "disk"), *own, "--json").data["folder"]
    with Session(place=home).store() as store:
        store.add_all([spend(), said(1), Consent(purpose="log", granted=False, time=9.0)])
    restore = ("backup", "restore", made, *own, "--key", "file", "--insecure-key-file", "--json")
    assert ready(*restore).error["code"] == "exists"
    assert ready(*restore, "--replace").error["code"] == "confirmation_needed"
    assert ready(*restore, "--replace", "--yes").data["carried"] == 4
    with Session(place=home).store() as store:
        assert store.all(Spend) == [spend()]
        assert store.consent("log") is None
        assert store.count(Interaction) == 0
        assert store.verify().ok


def test_a_damaged_store_is_replaced_by_its_backup(
    ready: Call, home: Path, tmp_path: Path, phrases: dict[str, str]
) -> None:
    """With a page destroyed the ledgers are still carried over; with the file emptied it must be wiped by name."""
    own = ("--backup-passphrase-file", phrases["new"])
    with Session(place=home).store() as store:
        store.add_all([*(said(number) for number in range(300)), spend()])
    made = ready("backup", "create", str(tmp_path / "disk"), *own, "--json").data["folder"]
    database = home / "data" / "store-1" / "store.db"
    raw = bytearray(database.read_bytes())
    raw[4096 * 20 : 4096 * 21] = os.urandom(4096)
    database.write_bytes(raw)
    restore = ("backup", "restore", made, *own, "--replace", "--yes", "--key", "file", "--insecure-key-file", "--json")
    assert ready(*restore).data["carried"] == 3
    assert ready("doctor", "--json").data["fail"] == 0
    (home / "data" / "store-2" / "store.db").write_bytes(b"")
    result = ready(*restore)
    assert (result.code, result.error["code"]) == (13, "ledgers_lost")
    assert "corrigible wipe" in result.error["hint"]
    assert ready("wipe", "--yes").code == 0
    assert ready(*restore).data["records"] == 303
    assert ready("log", "list", "--json").data["count"] == 20


def test_a_damaged_backup_is_exit_13_and_restores_nothing(ready: Call, tmp_path: Path, phrases: dict[str, str]) -> None:
    """One flipped bit anywhere in the copy."""
    own = ("--backup-passphrase-file", phrases["new"])
    made = ready("backup", "create", str(tmp_path / "disk"), *own, "--json").data["folder"]
    database = Path(made) / "store.db"
    raw = bytearray(database.read_bytes())
    raw[5000] ^= 1
    database.write_bytes(raw)
    result = ready("backup", "verify", made, *own, "--json")
    assert result.code == 13
    assert result.data["problems"][0]["code"] == "backup_damaged"
    result = ready("--home", str(tmp_path / "other"), "backup", "restore", made, *own, "--json")
    assert (result.code, result.error["code"]) == (13, "backup_damaged")
    assert not (tmp_path / "other" / "data" / "key.json").exists()


def test_places_that_are_no_backups_and_no_places_for_one(
    ready: Call, home: Path, tmp_path: Path, phrases: dict[str, str]
) -> None:
    """An empty folder, the store's own folder, and no store at all."""
    own = ("--backup-passphrase-file", phrases["new"])
    assert ready("backup", "verify", str(tmp_path), *own, "--json").error["code"] == "not_a_backup"
    assert ready("backup", "restore", str(tmp_path), *own, "--json").error["code"] == "not_a_backup"
    assert ready("backup", "create", str(home / "data" / "copies"), *own, "--json").error["code"] == "backup_inside"
    away = ("--home", str(tmp_path / "away"))
    assert ready(*away, "backup", "create", str(tmp_path / "disk"), *own, "--json").code == 10


def test_wipe_names_what_goes_and_leaves_settings_and_backups(
    ready: Call, home: Path, tmp_path: Path, phrases: dict[str, str]
) -> None:
    """Asked first; keys first; afterwards there is no store, and a fleet's keys and the logs are gone, too."""
    (home / "config.toml").write_text("[chat]\nturns = 2\n")
    (home / "data" / "fleet").mkdir()
    (home / "data" / "fleet" / "membership.json").write_text("{}")
    (home / "state" / "logs").mkdir()
    (home / "state" / "logs" / "errors.log").write_text("KeyError\n")
    own = ("--backup-passphrase-file", phrases["new"])
    made = ready("backup", "create", str(tmp_path / "disk"), *own, "--json").data["folder"]
    asked = ready("wipe", "--json")
    assert (asked.code, asked.error["code"]) == (2, "confirmation_needed")
    for name in ("key.json", "store-1", "fleet", "logs"):
        assert name in asked.error["message"]
    removed = [Path(one["path"]).name for one in ready("wipe", "--yes", "--json").data["removed"]]
    assert removed[0].startswith("insecure-")
    assert removed[1] == "key.json"
    assert list((home / "data").iterdir()) == []
    assert {path.suffix for path in (home / "state").iterdir()} <= {".lock"}
    assert ready("status").code == 10
    assert ready("wipe", "--yes").code == 10
    assert (home / "config.toml").is_file()
    assert ready("backup", "verify", made, *own).code == 0


def test_an_export_for_another_device_opens_with_its_passphrase(
    ready: Call, home: Path, tmp_path: Path, phrases: dict[str, str]
) -> None:
    """Sealed for a passphrase: wrong one exit 12, none exit 11, right one brings the record in, once."""
    with Session(place=home).store() as store:
        store.add(said(1))
    out, secret = str(tmp_path / "out"), ("--export-passphrase-file", phrases["new"])
    assert ready("log", "export", out, *secret, "--plaintext").code == 2
    assert ready("log", "export", out, *secret, "--json").data["sealed"] is True
    other = ("--home", str(tmp_path / "other"))
    assert ready(*other, "init", "--key", "file", "--insecure-key-file").code == 0
    assert ready(*other, "log", "import", out).code == 11
    wrong = ready(*other, "log", "import", out, "--export-passphrase-file", phrases["wrong"], "--json")
    assert (wrong.code, wrong.error["code"]) == (12, "wrong_key")
    assert ready(*other, "log", "import", out, *secret, "--json").data["added"] == 1
    assert ready(*other, "log", "import", out, *secret, "--json").data["known"] == 1


def test_the_support_archive_lists_its_parts_and_holds_no_words(ready: Call, home: Path, tmp_path: Path) -> None:
    """Counts, codes, versions and frames; nothing that was said, no path, nothing slipped into the log."""
    with Session(place=home).store() as store:
        store.add_all([said(number) for number in range(3)])
    (home / "config.toml").write_text("[model]\npath = '/secret/place.gguf'\n[retention]\nratings = 30\n")
    logs = home / "state" / "logs"
    logs.mkdir()
    frame = f"  /home/somebody/{TEXT}/cli/log.py:12 show"
    (logs / "errors.log").write_text(f"2026-01-01T00:00:00Z\nKeyError\n{frame}\n{TEXT}\n")
    target = tmp_path / "report.zip"
    asked = ready("doctor", "--bundle", str(target), "--json")
    assert (asked.code, asked.error["code"]) == (2, "confirmation_needed")
    for name in ("versions.json", "checks.json", "settings.json", "store.json", "errors.log"):
        assert name in asked.error["message"]
    assert not target.exists()
    assert ready("doctor", "--bundle", str(target), "--yes", "--json").data["bundle"]["file"] == str(target)
    with zipfile.ZipFile(target) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert json.loads(texts["store.json"])["records"] == {"Consent": 2, "Interaction": 3}
    assert json.loads(texts["settings.json"]) == {"model.path": "set", "retention.ratings": 30.0}
    assert texts["errors.log"] == "2026-01-01T00:00:00Z\nKeyError\n  cli/log.py:12 show\n"
    assert not any(word in "".join(texts.values()) for word in ("marmalade", "secret", "somebody", str(home)))
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_background_loop_applies_retention(ready: Call, home: Path) -> None:
    """What is past its days is gone soon after `learner run` started; what is young stays."""
    with Session(place=home).store() as store:
        young = said(2).__class__(
            messages=(Message("user", "young"),), answer="a", model=said(1).model, time=time.time()
        )
        store.add_all([said(1), young])
    (home / "config.toml").write_text("[retention]\ninteractions = 30\n[learner]\nlook_every = 0.1\n")
    command = [sys.executable, "-m", "cli.main", "--home", str(home), "learner", "run"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 600
        while ready("log", "list", "--json").data["count"] == 2 and time.monotonic() < until:
            time.sleep(0.2)
        process.terminate()
        assert process.wait(300) == 0
    assert [one["request"] for one in ready("log", "list", "--json").data["interactions"]] == ["young"]
    with Store.open(Home.at(home), unlock(Home.at(home))) as store:
        assert store.verify().ok


OPENING = [
    line.split()
    for line in (
        "status", "doctor", "log list", "log search x", "log show 00000000", "log rm 00000000 --yes", "log export FILE",
        "log import HERE", "key rotate", "key change-passphrase --new-passphrase-file HERE", "backup create FOLDER",
        "privacy verify",
    )
]  # fmt: skip


@pytest.mark.parametrize("words", OPENING, ids=" ".join)
def test_each_command_says_missing_locked_wrong_key_and_damaged(
    call: Call, home: Path, tmp_path: Path, phrases: dict[str, str], words: list[str]
) -> None:
    """Exit 10 without a store, 11 without a passphrase, 12 with a wrong one, 13 when key.json is damaged."""
    places = {"FILE": str(tmp_path / "out"), "HERE": phrases["new"], "FOLDER": str(tmp_path / "copies")}
    command = [places.get(word, word) for word in words]
    wrong = ["--passphrase-file", phrases["wrong"]]
    assert call(*wrong, *command, "--json").code == 10
    Store.create(Home.at(home), Passphrase("the old four words", Argon2Cost.small())).close()
    assert call(*command, "--json").code == 11
    assert call(*wrong, *command, "--json").code == 12
    (home / "data" / "key.json").write_text("{}")
    assert call(*wrong, *command, "--json").code == 13
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "copies").exists()
