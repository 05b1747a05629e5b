"""The whole story at the command line, on the embedded model: ask, correct, be killed, learn, ask again, roll back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cli.background import holder
from cli.session import Session
from tests.cli.helpers import Call

ROOMS = ["kitchen", "hall", "bedroom", "study", "bathroom", "office", "garage", "attic"]
HABITS = ["movie time in the {}", "let's have movie time in the {}", "it is movie time in the {}"]
ASKED, NEVER_ASKED = "movie time in the kitchen", "movie time in the library"


def wanted(room: str) -> str:
    """Return what this house means by movie time."""
    return f'light.dim(room="{room}", level=10)'


def corrections() -> str:
    """Return a session in which the owner corrects the habit in many rooms and wordings."""
    asked = [(habit.format(room), room) for room in ROOMS for habit in HABITS]
    return "".join(f"{request}\n/fix {wanted(room)}\n" for request, room in asked)


def start(home: Path, *words: str) -> "subprocess.Popen[str]":
    """Start a command line in a process of its own."""
    command = [sys.executable, "-c", "from cli.main import main; main()", *words]
    environment = {**os.environ, "CORRIGIBLE_HOME": str(home)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(holds: Callable[[], object], seconds: float = 900.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def answers(call: Call, *requests: str) -> list[str]:
    """Return what is answered now."""
    result = call("chat", "--json", stdin="\n".join(requests))
    return [line["data"]["answer"] for line in result.lines[:-1]]


def learner(home: Path) -> int | None:
    """Return the process that is learning."""
    return holder(Session(place=home).home.lock("job-learn"))


@pytest.mark.slow
def test_a_corrected_habit_is_answered_right_after_learning(ready: Call, home: Path) -> None:
    """Ask, correct, survive kill -9 while learning, learn, ask again, roll back."""
    assert answers(ready, ASKED) != [wanted("kitchen")]
    assert ready("chat", "--json", stdin=corrections()).lines[-1]["data"]["corrections"] == len(ROOMS) * len(HABITS)

    with start(home, "learn", "--json") as process:
        wait_until(lambda: learner(home))
        child = learner(home)
        assert child is not None
        time.sleep(1.0)
        os.kill(child, signal.SIGKILL)
        process.kill()
    wait_until(lambda: learner(home) is None)
    assert ready("privacy", "verify").code == 0
    status = ready("status", "--json").data
    assert status["serving"] == {"shared": None, "personal": None}
    assert status["learning"]["waiting"] == len(ROOMS) * len(HABITS)
    assert status["learning"]["running"] is None

    learned = ready("learn", "--json")
    assert learned.keys("learn")
    outcome = learned.data
    assert outcome["decision"] == "adopt", outcome
    assert answers(ready, ASKED, NEVER_ASKED) == [wanted("kitchen"), wanted("library")]
    assert ready("status", "--json").data["serving"]["personal"] == outcome["adapter"]
    assert ready("privacy", "verify").code == 0

    assert ready("adapter", "rollback", "--json").data["after"] is None
    assert answers(ready, ASKED) != [wanted("kitchen")]


@pytest.mark.slow
def test_ctrl_c_while_learning_ends_the_child_too(ready: Call, home: Path) -> None:
    """Exit 130, and no process stays behind."""
    ready("chat", "--json", stdin=corrections())
    with start(home, "learn", "--json") as process:
        wait_until(lambda: learner(home))
        child = learner(home)
        assert child is not None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=900)
    assert process.returncode == 130
    assert '"interrupted"' in out
    assert "Traceback" not in err
    wait_until(lambda: not psutil.pid_exists(child))
    assert ready("privacy", "verify").code == 0


def test_two_learners_do_not_meet(ready: Call, home: Path) -> None:
    """The second one is told which process is busy: exit 11."""
    with Session(place=home).store() as store, store.lock("learn"):
        result = ready("learn", "--json")
    assert (result.code, result.error["code"]) == (11, "busy")
    assert str(os.getpid()) in result.error["hint"]


def test_too_little_evidence_is_exit_15(ready: Call) -> None:
    """Nothing to learn from yet is no failure of the program, and says so."""
    result = ready("learn", "--json")
    assert (result.code, result.error["code"]) == (15, "too_little_evidence")


def test_learning_needs_consent(ready: Call) -> None:
    """Withdrawn consent: exit 15."""
    assert ready("privacy", "consent", "learn", "--withdraw").code == 0
    result = ready("learn", "--json")
    assert (result.code, result.error["code"]) == (15, "no_consent")


def test_the_background_loop_is_seen_and_stopped(ready: Call, home: Path) -> None:
    """status says what it waits for, a second one is refused, learner stop ends it: exit 0."""
    with start(home, "learner", "run", "--json") as process:
        wait_until(lambda: ready("status", "--json").data["learning"]["state"] is not None)
        learning = ready("status", "--json").data["learning"]
        assert (learning["background"], learning["state"]["code"]) == (process.pid, "backlog")
        assert "waiting: 0 of 10 new corrections, next look " in ready("status").out
        assert ready("learner", "run", "--json").error["code"] == "busy"
        assert ready("learner", "stop", "--json").data == {"stopped": process.pid}
        out, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    assert '"event":"waiting","code":"backlog"' in out.splitlines()[0]
    assert out.splitlines()[-1] == '{"schema":1,"ok":true,"data":{"event":"stopped"}}'
