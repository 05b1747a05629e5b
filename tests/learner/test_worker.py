"""Learning in a child process, on a real encrypted store."""

import time

import psutil
import pytest

from federation.update import UpdateRefused
from feedback.models import ModelFile
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.worker import LOCK, Limits, Told, Worker, _error, run_in_child, wait_until
from store.errors import CorrigibleError, Locked
from store.records import Receipt, Verdict
from tests.learner.conftest import Owner, running_children, teach_habit

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=6, max_steps=6))


def _children() -> list[psutil.Process]:
    return running_children("learner.worker")


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
            assert child.nice() == min(19, psutil.Process().nice() + 2)

    verdict = run_in_child(home, keys, model.path, POLICY, progress=progress, limits=Limits(2))
    assert "challenger" in seen
    assert store.last(Verdict) == verdict
    receipt = store.last(Receipt, run=verdict.id)
    assert receipt is not None
    assert (receipt.outcome, receipt.attempts, receipt.steps % POLICY.recipe.all_steps(1)) == (verdict.decision, 1, 0)
    assert receipt.cpu > 0.5
    assert receipt.wall > verdict.seconds
    assert receipt.peak > 100 * 2**20
    assert receipt.tokens > receipt.steps * 8 * 4
    assert store.active("personal") == (verdict.adapter if verdict.decision == "adopt" else None)
    assert commands
    assert keys.export().hex() not in commands[0]
    assert not _children()


def test_one_learner_at_a_time(owner: Owner, model: ModelFile) -> None:
    """A second run is refused with the family of errors that means busy."""
    home, keys, store = owner
    with store.lock(LOCK), pytest.raises(Locked):
        run_in_child(home, keys, model.path, POLICY)


def test_a_pause_stops_the_child_within_a_step(owner: Owner, model: ModelFile) -> None:
    """A paused child uses no processor and blocks nobody, goes on, and goes with its parent even standing still."""
    home, keys, store = owner
    teach_habit(store, model)
    with Worker(home, keys, model.path, POLICY, Limits(0, checkpoint=0.0)) as worker:
        while not isinstance(worker.next(), Told):
            pass
        asked = time.monotonic()
        worker.pause()
        assert wait_until(worker, paused=True, seconds=2.0)
        assert time.monotonic() - asked < 2.0
        before = worker.spent()[0]
        teach_habit(store, model, rooms=("shed",))
        worker.threads(1)
        time.sleep(0.3)
        assert worker.spent()[0] == before
        worker.resume()
        assert wait_until(worker, paused=False, seconds=2.0)
        assert isinstance(worker.next(), Told)
        worker.pause()
        assert wait_until(worker, paused=True, seconds=2.0)
    assert not _children()
    with store.lock(LOCK):
        pass


def test_a_childs_error_comes_back_whatever_else_is_loaded() -> None:
    """An error of another room, with no exit code of its own, does not stand in for the plain one."""
    assert UpdateRefused.exit_code == CorrigibleError.exit_code
    said = {"message": "There was no memory left.", "hint": "Give it more.", "code": "out_of_memory", "exit_code": 1}
    error = _error(said)
    assert (type(error), error.code, error.hint) == (CorrigibleError, "out_of_memory", "Give it more.")
