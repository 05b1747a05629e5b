"""Short forms of the tortures; `make torture` runs the long ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.torture import canaries, flips, ioerror, kill, power, rekey, rollback

traced = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """kill -9 at random moments of writing."""
    outcome = kill.run(tmp_path, 6)
    assert not outcome.bad, outcome.words()
    assert outcome.facts["acknowledged"]


@traced
def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Unsynced writes dropped, kept or torn at random points of a trace."""
    outcome = power.run(tmp_path, 40, commits=60)
    assert not outcome.bad, outcome.words()


@traced
def test_the_power_harness_catches_a_weaker_setting(tmp_path: Path) -> None:
    """With synchronous=NORMAL the same harness must go red, or it proves nothing."""
    assert power.run(tmp_path, 25, commits=60, synchronous="NORMAL").bad


def test_kills_during_rotation_leave_exactly_one_key(tmp_path: Path) -> None:
    """kill -9 while everything is re-encrypted."""
    outcome = rekey.run(tmp_path, 4)
    assert not outcome.bad, outcome.words()


def test_a_failing_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    """Every third write of a one-commit trace fails, with a full and with a broken disk, once and for good."""
    outcome = ioerror.run(tmp_path, 1, every=3)
    assert not outcome.bad, outcome.words()
    assert outcome.facts["ENOSPC surfaced"]
    assert outcome.facts["EIO surfaced"]


def test_flips_are_reported(tmp_path: Path) -> None:
    """Single bits in the database and the WAL, and the WAL deleted."""
    outcome = flips.run(tmp_path, 30)
    assert not outcome.bad, outcome.words()


def test_rollbacks_are_reported(tmp_path: Path) -> None:
    """Whole older files and single older pages."""
    outcome = rollback.run(tmp_path, 15, steps=8)
    assert not outcome.bad, outcome.words()


def test_no_canary_sings(tmp_path: Path) -> None:
    """Twelve states, every encoding; and the search sees what lies open."""
    outcome = canaries.run(tmp_path, 60)
    assert not outcome.bad, outcome.words()
    assert outcome.facts["states"] == 12


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to read another process's memory")
def test_no_key_stays_in_memory_after_closing() -> None:
    """Found while the store is open, gone afterwards; in a process of its own, which is small to search."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.torture", "memory", "--cycles", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "0 copies after closing" in done.stdout


def test_the_command_knows_its_tortures() -> None:
    """`python -m tools.torture` lists them and refuses others."""
    done = subprocess.run([sys.executable, "-m", "tools.torture", "tickle"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "rollback" in done.stderr
