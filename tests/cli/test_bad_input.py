"""Bad input, from the owner's side: a code and a hint each time, nothing lost, nothing half done."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli.session import Session
from store.engine import open_engine, writing
from store.keys import unlock
from store.paths import Home
from store.records import Interaction, Message
from tests.cli.helpers import Call
from tests.disk import full, small_disk

__all__ = ["small_disk"]
ROOT = Path(__file__).parents[2]
SAID = Interaction(messages=(Message("user", "kept"),), answer="a", model="sha256:" + "0" * 64, time=1.0)


@pytest.fixture
def kept(ready: Call, home: Path) -> Call:
    """A store with one record that must survive everything."""
    with Session(place=home).store() as store:
        store.add(SAID)
    return ready


def database(home: Path) -> Path:
    """The database file."""
    return home / "data" / "store-1" / "store.db"


def truncated(home: Path) -> None:
    """Half the database is gone."""
    os.truncate(database(home), database(home).stat().st_size // 2)


def foreign(home: Path) -> None:
    """A plain SQLite file lies where the database was."""
    database(home).unlink()
    with sqlite3.connect(database(home)) as plain:
        plain.execute("CREATE TABLE records (seq)")
    plain.close()


def newer(home: Path) -> None:
    """A later version of the program has migrated the store."""
    place = Home.at(home)
    engine = open_engine(place.generation(1) / "store.db", unlock(place).secret("database"))
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'r9999'")
    engine.dispose()


def no_database(home: Path) -> None:
    """The database file is gone."""
    database(home).unlink()


def half_a_key_file(home: Path) -> None:
    """key.json was cut."""
    os.truncate(home / "data" / "key.json", 40)


def another_key(home: Path) -> None:
    """The key file is that of some other store."""
    next((home / "data").glob("insecure-*")).write_text("00" * 32)


@pytest.mark.parametrize(
    ("damage", "exit_code", "code"),
    [
        (truncated, 13, None),
        (foreign, 13, "store_corrupt"),
        (newer, 13, "newer_schema"),
        (no_database, 13, "store_missing"),
        (half_a_key_file, 13, "key_file_damaged"),
        (another_key, 12, "wrong_key"),
    ],
)
def test_a_store_that_cannot_be_used_says_why_and_is_left_alone(
    kept: Call, home: Path, tmp_path: Path, damage: Callable[[Path], None], exit_code: int, code: str | None
) -> None:
    """The word for it and what to do; put back, everything is there, so nothing was made worse."""
    shutil.copytree(home, tmp_path / "saved")
    damage(home)
    result = kept("doctor", "--json") if damage is truncated else kept("log", "list", "--json")
    assert result.code == exit_code
    if code is not None:
        assert result.error["code"] == code
        assert result.error["hint"]
    for path in [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]:
        shutil.copy(path, home / path.relative_to(tmp_path / "saved"))
    assert kept("log", "list", "--json").data["count"] == 1
    assert kept("doctor", "--json").data["fail"] == 0


@pytest.mark.parametrize("where", ["data", "state"])
def test_a_symbolic_link_where_a_folder_should_be(call: Call, home: Path, tmp_path: Path, where: str) -> None:
    """Refused by name; nothing is written through it."""
    (tmp_path / "elsewhere").mkdir()
    home.mkdir()
    (home / where).symlink_to(tmp_path / "elsewhere")
    result = call("init", "--key", "file", "--insecure-key-file", "--json")
    assert (result.code, result.error["code"]) == (2, "symlink")
    assert result.error["hint"]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("text", "code"), [("x" * 50_000_000, "too_long"), ("a\0b", "bad_text"), ("a\udcffb", "bad_text")]
)
def test_text_that_cannot_be_kept_is_refused(kept: Call, text: str, code: str) -> None:
    """50 MB, NUL and half a character as a correction: exit 2, none of the text in the message, nothing stored."""
    result = kept("correct", SAID.id, text, "--json")
    assert (result.code, result.error["code"]) == (2, code)
    assert result.error["hint"]
    assert len(result.error["message"]) < 200
    assert kept("log", "show", SAID.id, "--json").data["corrected"] is None


def test_an_import_with_such_texts_takes_the_rest(kept: Call, tmp_path: Path) -> None:
    """Exit 3: each bad line by number and reason, the good one is in."""

    def line(text: str) -> str:
        body = {"messages": [{"role": "user", "content": text}], "answer": "a", "model": "m", "stack": [], "time": 2.0}
        return json.dumps({"kind": "Interaction", "record": body})

    lines = [line("good"), line("x" * 9_000_000), line("a\0b"), line("a\ud800b")]
    (tmp_path / "in").write_text("\n".join(lines))
    result = kept("log", "import", str(tmp_path / "in"), "--json")
    assert (result.code, result.data["added"]) == (3, 1)
    assert [one["entry"] for one in result.data["skipped"]] == [2, 3, 4]


def test_a_clock_that_went_back_removes_nothing_and_says_so(kept: Call, home: Path) -> None:
    """The background loop waits with the reason; the record from the future and the old one both stay."""
    with Session(place=home).store() as store:
        store.add(replace(SAID, answer="b", time=time.time() + 30 * 86400))
    (home / "config.toml").write_text("[retention]\ninteractions = 1\n[learner]\nlook_every = 0.1\n")
    command = [sys.executable, "-m", "cli.main", "--home", str(home), "learner", "run", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        second = kept("learner", "run", "--json")
        process.terminate()
        process.wait(30)
    assert (told["data"]["event"], told["data"]["code"]) == ("waiting", "failed")
    assert "clock is behind" in told["data"]["reason"]
    assert (second.code, second.error["code"]) == (11, "busy")
    assert str(process.pid) in second.error["hint"]
    assert kept("log", "list", "--json").data["count"] == 2


def test_a_folder_that_cannot_be_written(kept: Call, home: Path, tmp_path: Path) -> None:
    """Another user's read-only store: exit 1, the code, a hint; afterwards all is as before."""
    paths = [home, *home.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.getuid() and path not in (Path("/"), Path("/tmp")):
            path.chmod(path.stat().st_mode | 0o755)
    ours, its = os.pipe()
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        result = kept("correct", "--last", "better", "--json")
        os.write(its, json.dumps([result.code, result.error]).encode())
        os._exit(0)
    os.close(its)
    os.waitpid(child, 0)
    code, error = json.loads(os.read(ours, 10_000))
    os.close(ours)
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert (code, error["code"]) == (1, "read_only")
    assert error["hint"]
    assert kept("log", "show", SAID.id, "--json").data["corrected"] is None


def test_a_full_disk(call: Call, small_disk: Path) -> None:
    """Exit 1, disk_full and a hint, whether the store is opened or made; with room again it is whole."""
    place, other = ("--home", str(small_disk / "home")), ("--home", str(small_disk / "other"))
    assert call(*place, "init", "--key", "file", "--insecure-key-file").code == 0
    with Session(place=small_disk / "home").store() as store:
        store.add(SAID)
    making = (*other, "init", "--key", "file", "--insecure-key-file")
    with full(small_disk):
        for words in ((*place, "correct", "--last", "better"), making):
            result = call(*words, "--json")
            assert (result.code, result.error["code"]) == (1, "disk_full"), words
            assert result.error["hint"]
    assert call(*place, "log", "show", SAID.id, "--json").data["corrected"] is None
    assert call(*place, "doctor", "--json").data["fail"] == 0
    assert call(*making).code == 0
