"""Several processes on one store, and folders that refuse."""

import os
import time
from pathlib import Path

import pytest

from store.errors import CorrigibleError, Locked
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Interaction
from store.store import Store
from tests.store.samples import interaction


def child(work: object) -> int:
    """Run `work()` in a forked child; its exit code is 0 when it returned, 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def succeeded(pid: int) -> bool:
    """Wait for a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_three_writers_queue_instead_of_failing(store: Store) -> None:
    """No busy error, nothing lost, one unbroken chain and an anchor at its end."""
    raw = unlock(store.home).export()

    def write(writer: int) -> None:
        with Store.open(store.home, Keys.from_bytes(raw)) as own:
            for number in range(40):
                own.add(interaction(writer * 1000 + number))

    assert all(succeeded(pid) for pid in [child(lambda writer=writer: write(writer)) for writer in range(3)])
    assert store.count(Interaction) == 120
    report = store.verify()
    assert report.ok
    assert report.records == 120


def test_opening_and_closing_in_a_crowd_never_says_busy(store: Store) -> None:
    """Short-lived commands side by side wait for each other's closing."""
    store.close()

    def command(number: int) -> None:
        for turn in range(6):
            with Store.open(store.home, unlock(store.home)) as own:
                own.add(interaction(number * 100 + turn))

    assert all(succeeded(pid) for pid in [child(lambda number=number: command(number)) for number in range(4)])
    with Store.open(store.home, unlock(store.home)) as own:
        assert own.count(Interaction) == 24
        assert own.verify().ok


def test_what_one_process_writes_another_sees_at_once(store: Store) -> None:
    """Also damage: found by one, known to all."""
    with Store.open(store.home, unlock(store.home)) as other:
        other.add(interaction(1))
        assert store.all(Interaction) == [interaction(1)]
        store._anchor.advance(lambda mark: type(mark)(mark.seq, mark.head, mark.counts, "", "found") if mark else None)
        assert other.damage == "found"


def test_a_second_daemon_is_told_who_is_first(store: Store) -> None:
    """The lock names the process that holds it, and dies with it."""
    reader, writer = os.pipe()

    def hold() -> None:
        with store.lock("daemon"):
            os.write(writer, b".")
            time.sleep(60)

    pid = child(hold)
    os.read(reader, 1)
    with pytest.raises(Locked) as caught, store.lock("daemon"):
        pass
    assert str(pid) in caught.value.hint
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    with store.lock("daemon"):
        pass


@pytest.mark.parametrize("made_before", [False, True])
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, made_before: bool) -> None:
    """Creating and opening in a read-only place: code read_only, a hint, and nothing half made."""
    home = Home.at(tmp_path / "place" / "home")
    home.root.parent.mkdir()
    if made_before:
        Store.create(home, KeyFile()).close()
    paths = [home.root.parent, *home.root.parent.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in [*tmp_path.parents][:-1]:
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)
    tmp_path.chmod(0o755)

    def attempt() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        with pytest.raises(CorrigibleError) as caught:
            Store.open(home, unlock(home)) if made_before else Store.create(home, KeyFile())
        assert caught.value.code == "read_only"
        assert caught.value.hint

    try:
        assert succeeded(child(attempt))
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
    if made_before:
        Store.open(home, unlock(home)).close()
