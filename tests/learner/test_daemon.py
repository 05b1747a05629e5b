"""The daemon on a real store, with real children and files that stand for the machine."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from feedback import presence
from feedback.models import ModelFile
from learner import state
from learner.conditions import Manners, Wait
from learner.daemon import Duty, News, backlog, run, smaller
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from store.errors import CorrigibleError, Locked
from store.records import Consent, Receipt, Verdict
from tests.learner.conftest import ROOMS, Owner, running_children, teach_habit

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=24, max_steps=24))  # long enough to be cut off
QUICK = Manners(
    every=len(ROOMS), look_every=0.05, idle=0.6, load=1.0, memory_headroom=0.0, unknown="go", nice=0,
    checkpoint=0.0,
)


class Watched:
    """A daemon in a thread, and what it told."""

    def __init__(self, duty: Duty) -> None:
        self.told: list[News] = []
        self.duty, self._stop = duty, threading.Event()
        self._thread = threading.Thread(target=run, args=(duty,), kwargs={"stop": self._stop, "tell": self.told.append})

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def until(self, what: Callable[[], object], seconds: float = 600.0) -> float:
        """Wait for `what`; returns the seconds it took."""
        began = time.monotonic()
        while not what():
            assert self._thread.is_alive(), self.told  # what it died of is among pytest's warnings
            assert time.monotonic() - began < seconds, (self.told, state.read(self.duty.home))
            time.sleep(0.01)
        return time.monotonic() - began

    def is_in(self, name: str) -> bool:
        """Whether the daemon published this state."""
        now = state.read(self.duty.home)
        return now is not None and now.state == name


def duty(owner: Owner, model: ModelFile, root: Path, manners: Manners = QUICK) -> Duty:
    """A daemon's duty on a machine that is only a folder."""
    home, keys, store = owner
    (root / "sys/class/power_supply").mkdir(parents=True, exist_ok=True)
    return Duty(store, home, keys, model.path, POLICY, manners, root)


def test_it_learns_makes_room_for_people_and_survives_its_child(
    owner: Owner, model: ModelFile, tmp_path: Path
) -> None:
    """One day: four corrections wait; twelve start a run, paused within two seconds of a request and going on after.

    A kill -9 of the child costs nothing: the next one takes its journal up, and one verdict comes of both.
    """
    home, _, store = owner
    teach_habit(store, model, rooms=ROOMS[:4])
    with Watched(duty(owner, model, tmp_path)) as daemon:
        daemon.until(lambda: daemon.told)
        assert isinstance(daemon.told[0], Wait)
        assert daemon.told[0].reason == "4 of 12 new corrections"
        teach_habit(store, model)
        daemon.until(lambda: (now := state.read(home)) and now.step > 0)
        presence.mark(home)
        assert daemon.until(lambda: daemon.is_in("paused")) < 2.0
        now = state.read(home)
        assert now is not None
        assert (now.code, now.reason) == ("activity", "you are here")
        daemon.until(lambda: daemon.is_in("running"))
        (child,) = running_children("learner.worker_child")
        os.kill(child.pid, 9)
        daemon.until(lambda: len(daemon.told) == 3)
    verdict, wait = daemon.told[1:]
    assert isinstance(verdict, Verdict)
    assert isinstance(wait, Wait)
    assert store.verify().ok
    assert store.all(Verdict) == [verdict]
    outcomes = [(one.outcome, one.code, one.attempts) for one in store.all(Receipt)]
    assert outcomes == [("failed", "worker_died", 1), (verdict.decision, "", 2)]
    assert state.read(home) is None


def test_on_battery_it_waits_and_says_so(owner: Owner, model: ModelFile, tmp_path: Path) -> None:
    """The files of a laptop that was unplugged: nothing starts."""
    _, _, store = owner
    teach_habit(store, model)
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("capacity", "90")):
        (battery / name).write_text(text)
    with Watched(duty(owner, model, tmp_path)) as daemon:
        daemon.until(lambda: daemon.told)
    assert isinstance(daemon.told[0], Wait)
    assert (daemon.told[0].code, daemon.told[0].reason) == ("power", "on battery")
    assert store.count(Receipt) == 0


def test_a_run_without_memory_is_tried_smaller_and_reported(owner: Owner, model: ModelFile, tmp_path: Path) -> None:
    """A cap below what the model needs: two attempts, one report, and no further try for an hour."""
    _, _, store = owner
    teach_habit(store, model)
    starving = duty(owner, model, tmp_path, replace(QUICK, memory_cap=150.0))
    with Watched(starving) as daemon:
        daemon.until(lambda: len(daemon.told) == 2)
    error, wait = daemon.told
    assert isinstance(error, CorrigibleError)
    assert error.code in ("out_of_memory", "worker_died")
    assert isinstance(wait, Wait)
    assert wait.code == "failed"
    assert wait.next_look > time.time() + 3000
    assert all(one.outcome == "failed" for one in store.all(Receipt))


def test_withdrawn_consent_is_a_reason_to_wait(owner: Owner, model: ModelFile, tmp_path: Path) -> None:
    """The owner's no is final until it is taken back."""
    _, _, store = owner
    teach_habit(store, model)
    store.add(Consent(purpose="learn", granted=False, time=1.0))
    with Watched(duty(owner, model, tmp_path)) as daemon:
        daemon.until(lambda: daemon.told)
    assert isinstance(daemon.told[0], Wait)
    assert daemon.told[0].code == "consent"


def test_one_daemon_for_a_store(owner: Owner, model: ModelFile, tmp_path: Path) -> None:
    """A second one is refused."""
    with owner[2].lock("daemon"), pytest.raises(Locked):
        run(duty(owner, model, tmp_path), stop=threading.Event(), tell=print)


def test_two_hundred_corrections_in_a_minute_do_not_teach(owner: Owner, model: ModelFile) -> None:
    """They are counted as a burst, which `decide` answers with a wait."""
    home, _, store = owner
    teach_habit(store, model, rooms=tuple(f"room {number}" for number in range(200)))
    assert backlog(store, home).burst >= 60


def test_the_daemon_stays_small() -> None:
    """Neither torch nor llama.cpp is loaded where only the clock is watched."""
    code = "import sys, learner.daemon; print([name for name in ('torch', 'llama_cpp', 'peft') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_smaller_means_less_at_a_time() -> None:
    """Half the examples in a step, half their length, never nothing; the base stays in its file."""
    once = smaller(POLICY)
    assert (once.recipe.batch, once.recipe.max_tokens) == (4, POLICY.recipe.max_tokens // 2)
    assert (POLICY.flags.hold, once.flags.hold) == ("fast", "blocks")
    assert (POLICY.flags.recompute, once.flags.recompute) == (False, True)
    for _ in range(10):
        once = smaller(once)
    assert (once.recipe.batch, once.recipe.max_tokens, once.flags.micro_batch) == (2, 64, 1)
