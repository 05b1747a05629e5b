"""Learning in a child process, on a real encrypted store."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from feedback.models import ModelFile
from learner.loop import Pace, waiting, watch
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.worker import LOCK, run_in_child
from store.errors import CorrigibleError, Locked
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import Argon2Cost, Passphrase
from store.records import Adapter, Verdict
from store.store import Store
from tests.learner.conftest import ROOMS, teach_habit

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=6, max_steps=6))
Owner = tuple[Home, Keys, Store]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """A home with its keys and open store."""
    home = Home.at(tmp_path / "home")
    with Store.create(home, Passphrase("correct horse", Argon2Cost.small())) as store:
        yield home, unlock(home, passphrase=lambda: "correct horse"), store


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "learner.worker" in " ".join(child.cmdline())]


def test_a_child_learns_and_reports(owner: Owner, model: ModelFile) -> None:
    """Progress arrives, the verdict is in the store, and the key was nowhere to be seen."""
    home, keys, store = owner
    teach_habit(store, model)
    seen: list[str] = []
    commands: list[str] = []

    def progress(phase: str, step: int, steps: int, loss: float) -> None:
        seen.append(phase)
        for child in _children() if not commands else ():
            commands.append(" ".join(child.cmdline()) + str(child.environ()))
            assert child.nice() >= min(19, psutil.Process().nice() + 10)

    verdict = run_in_child(home, keys, model.path, POLICY, progress=progress)
    assert "challenger" in seen
    assert store.last(Verdict) == verdict
    assert store.active("personal") == (verdict.adapter if verdict.decision == "adopt" else None)
    assert commands
    assert keys.export().hex() not in commands[0]
    assert not _children()


def test_a_killed_child_leaves_everything_whole(owner: Owner, model: ModelFile) -> None:
    """kill -9 in the middle of training: a clear error, the store whole, nothing half adopted, and the lock free."""
    home, keys, store = owner
    teach_habit(store, model)

    def kill(phase: str, step: int, steps: int, loss: float) -> None:
        for child in _children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(CorrigibleError) as caught:
        run_in_child(home, keys, model.path, POLICY, progress=kill)
    assert caught.value.code == "worker_died"
    assert store.verify().ok
    assert store.active("personal") is None
    assert store.count(Adapter) == 0
    with store.lock(LOCK):
        pass


def test_one_learner_at_a_time(owner: Owner, model: ModelFile) -> None:
    """A second run is refused with the family of errors that means busy."""
    home, keys, store = owner
    with store.lock(LOCK), pytest.raises(Locked):
        run_in_child(home, keys, model.path, POLICY)


def test_the_loop_learns_when_enough_has_come(owner: Owner, model: ModelFile) -> None:
    """Twelve corrections start one run; afterwards nothing is waiting and the loop can be stopped."""
    home, keys, store = owner
    told: list[object] = []
    stop = threading.Event()
    pace = Pace(corrections=len(ROOMS), look_every=0.05)
    teach_habit(store, model, rooms=ROOMS[:4])
    assert waiting(store) == 4

    def tell(verdict: object) -> None:
        told.append(verdict)
        stop.set()

    teach_habit(store, model)
    started = time.monotonic()
    watch(store, home, keys, model.path, POLICY, pace, stop=stop, tell=tell)
    assert len(told) == 1
    assert waiting(store) == 0
    assert time.monotonic() - started < 60
