"""Child processes: clean environment, groups taken down whole, nothing outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from federation.processes import SWITCHED_OFF, Child, environment, free_ports, spawn, stop, wait_for
from store.errors import NetworkError

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
time.sleep(60)
"""
LEASHED = """
import os, sys, time
from federation.leash import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""


def python(code: str, folder: Path, name: str = "child", stdin: bytes | None = None) -> Child:
    """Start a Python child."""
    return spawn(name, [sys.executable, "-c", code], folder, stdin=stdin)


def gone(pid: int) -> bool:
    """Say whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_child_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no token; Flower's calls home and its installer are off, the home is its own."""
    monkeypatch.setenv("HTTPS_PROXY", "http://example")
    child = python("import os; print(sorted(os.environ.items()))", tmp_path)
    child.process.wait(20)
    said = child.log.read_text()
    assert "PROXY" not in said
    assert all(f"('{name}', '{value}')" in said for name, value in SWITCHED_OFF.items())
    assert environment(tmp_path)["FLWR_HOME"] == str(tmp_path)


def test_stopping_ends_the_whole_family(tmp_path: Path) -> None:
    """A child's children go with it, also when the child ignores SIGTERM."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n" + FAMILY
    children = [python(FAMILY, tmp_path, "polite"), python(stubborn, tmp_path, "stubborn")]
    wait_for(lambda: children[1].log.read_text() != "", children, what="the child", seconds=20)
    stop(children, grace=0.5)
    for child in children:
        assert not child.alive()
        family = [process.pid for process in psutil.process_iter() if os.getpgid(process.pid) == child.process.pid]
        assert all(gone(pid) for pid in family)


def test_a_secret_goes_over_stdin_and_not_into_the_process_table(tmp_path: Path) -> None:
    """What a worker is told is on neither its command line nor its environment."""
    child = python(
        "import sys, time; print(len(sys.stdin.read()), flush=True); time.sleep(60)", tmp_path, stdin=b"zanzibar"
    )
    wait_for(lambda: child.log.read_text() == "8\n", [child], what="the child", seconds=20)
    for name in ("cmdline", "environ"):
        assert b"zanzibar" not in Path(f"/proc/{child.process.pid}/{name}").read_bytes()
    stop([child])


def test_a_child_that_dies_or_never_gets_ready_is_named(tmp_path: Path) -> None:
    """The error names the process, its code and its log."""
    dead = python("raise SystemExit(3)", tmp_path, "dead")
    dead.process.wait(20)
    with pytest.raises(NetworkError, match="dead ended with code 3") as error:
        wait_for(lambda: False, [dead], what="it", seconds=5)
    assert "dead.log" in error.value.hint
    with pytest.raises(NetworkError, match="not ready after 0 seconds"):
        wait_for(lambda: False, [], what="it", seconds=0.2)


def test_a_leashed_process_dies_with_its_parent() -> None:
    """Even kill -9 of the parent leaves nothing behind."""
    outer = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {LEASHED!r}, str(os.getpid())])"
    parent = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(pid)


def test_free_ports_are_distinct() -> None:
    """Each process gets its own."""
    assert len(set(free_ports(20))) == 20
