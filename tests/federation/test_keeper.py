"""Children are started again when they end, ever later when they end at once; one server runs in one folder."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from federation import keeper as keepers
from federation.keeper import Keeper
from federation.processes import Child, spawn
from federation.up import LAST, WANTED, Server
from store.errors import Locked, UsageError
from store.locks import FileLock
from tests.federation.desk import make_fleet
from tests.federation.live import make_server, serving, standard


def child(folder: Path, code: str, name: str = "child") -> Callable[[], Child]:
    """How to start a Python child."""
    return lambda: spawn(name, [sys.executable, "-c", code], folder)


def until(ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait a little."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_killed_comes_back_and_closing_ends_all(tmp_path: Path) -> None:
    """kill -9 of one child leaves the other alone; after `close` nothing runs."""
    sleep = "import time; time.sleep(600)"
    said: list[tuple[str, str]] = []
    keeper = Keeper(
        {"one": child(tmp_path, sleep, "one"), "two": child(tmp_path, sleep, "two")}, lambda *news: said.append(news)
    )
    keeper.tend()
    before = keeper.running()
    os.kill(before["one"], signal.SIGKILL)
    until(lambda: "one" not in keeper.running())
    assert keeper.tend() == ["one"]
    assert ("one", "ended with code -9") in said
    until(lambda: keeper.tend() == [] and "one" in keeper.running())
    assert keeper.running()["two"] == before["two"]
    keeper.close()
    assert keeper.running() == {}


def test_what_ends_at_once_is_started_ever_later(tmp_path: Path) -> None:
    """Waits double, up to a bound: a broken child does not eat the machine."""
    keeper = Keeper({"broken": child(tmp_path, "raise SystemExit(3)")})
    watched = keeper._watched["broken"]
    waits = []
    for _ in range(7):
        watched.due = 0.0
        keeper.tend()
        until(lambda: watched.child is not None and not watched.child.alive())
        keeper.tend()
        waits.append(watched.wait)
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert keepers.LONGEST_WAIT == 30.0


def test_two_servers_do_not_run_in_one_folder(tmp_path: Path) -> None:
    """The second says so and starts nothing."""
    folder, charter = make_server(tmp_path / "server", make_fleet(tmp_path / "desk", 0).plan)
    server = Server(folder, charter, lambda _event, _detail: None)
    with FileLock(folder.root / "up.lock", "the first server"), pytest.raises(Locked):
        server.run(lambda: True)
    assert server.keeper.running() == {}


@pytest.mark.slow
def test_a_round_whose_executor_dies_before_it_is_on_file_is_begun_again(tmp_path: Path) -> None:
    """What the operator asked for is not forgotten with the run that was to do it."""
    plan = standard()
    with serving(tmp_path / "server", replace(plan, pace=replace(plan.pace, quorum=0))) as live:
        server, state = live.server, live.folder.state()
        state.put(LAST, repr(time.time()))
        state.put(WANTED, "yes")
        runs: list[str] = []
        server.tell = lambda event, detail: runs.append(str(detail["state"])) if event == "run" else None

        def started(count: int) -> bool:
            server._step()
            return runs.count("started") == count

        until(lambda: started(1), 120)
        os.kill(server.keeper.running()["superexec"], signal.SIGKILL)
        assert state.rounds() == []
        until(lambda: started(2), 120)
        assert (runs[0], state.get(WANTED)) == ("started", None)


@pytest.mark.parametrize(
    "changes", [{"port": 0}, {"port": 8444}, {"rollout": 101}, {"interval": 0.0}, {"rate": 0.0}, {"burst": 0}], ids=str
)
def test_settings_out_of_range_are_refused(tmp_path: Path, changes: dict[str, float]) -> None:
    """Before anything is written."""
    from federation.charter import Charter

    with pytest.raises(UsageError):
        Charter(operator="x", **changes).write(tmp_path / "charter.json")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
