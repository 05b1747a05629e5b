"""How soon the learner makes room, and what it uses while it only waits: `python -m bench.pause [--pauses 20]`.

A real daemon on a real store lets a real child train the embedded model; a request is marked, and the time until the
child's process stands still is taken, again and again. Between pauses the daemon looks every second, not every five,
whether the child may go on. Then the daemon has nothing to do, and its processor time is read over a minute of waiting.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import psutil

from feedback import presence
from feedback.models import check_model, embedded_model
from learner import state
from learner.conditions import Manners
from learner.daemon import Duty, run
from learner.journal import Checkpoint
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.worker import STOPPED
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Correction, Interaction, Message
from store.store import Store

LONG = LearnPolicy(recipe=Recipe(min_steps=5000, max_steps=5000))
MANNERS = Manners(every=10, look_every=1.0, idle=0.6, load=1.0, memory_headroom=0.0, unknown="go", nice=0)
WAIT = 600.0  # seconds for anything to happen
IDLE = 60.0  # seconds of waiting that are measured


def main() -> int:
    """Measure and print; 1 when a pause took two seconds or the idle daemon a thousandth of a processor."""
    parser = argparse.ArgumentParser(prog="python -m bench.pause", description=__doc__)
    parser.add_argument("--pauses", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder) / "home")
        with Store.create(home, KeyFile()) as store:
            _teach(store)
            model = check_model(embedded_model())
            duty = Duty(store, home, unlock(home), model.path, LONG, MANNERS, Path(folder))
            (Path(folder) / "sys/class/power_supply").mkdir(parents=True)
            with mock.patch("learner.daemon.LOOK", 1.0):
                taken = _with_daemon(duty, lambda: _pauses(home, options.pauses))
            Checkpoint(store, home).drop()
            store.remove_all([one.id for one in store.all(Interaction)])
            idle = Duty(store, home, duty.keys, model.path, LONG, Manners(), Path(folder))
            share = _with_daemon(idle, _idle)[0]
    found = {
        "pauses": len(taken), "median seconds": round(statistics.median(taken), 3), "most": round(max(taken), 3),
        "load": round(psutil.getloadavg()[0], 1),
        "idle processor share": f"{100 * share:.4f} %",
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    return 0 if max(taken) < 2.0 and share <= 0.001 else 1


def _with_daemon(duty: Duty, work: Callable[[], list[float]]) -> list[float]:
    """Run `work` beside a daemon."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(duty,), kwargs={"stop": stop, "tell": lambda _: None})
    thread.start()
    try:
        return work()
    finally:
        stop.set()
        thread.join(WAIT)


def _pauses(home: Home, count: int) -> list[float]:
    """Seconds from a sign of a person to a child that stands still, `count` times."""
    _until(lambda: (now := state.read(home)) is not None and now.step > 0)
    (child,) = (one for one in psutil.Process().children() if "learner.worker_child" in " ".join(one.cmdline()))
    taken = []
    for _ in range(count):
        _until(lambda: child.status() not in STOPPED)
        time.sleep(0.7)
        began = time.monotonic()
        presence.mark(home)
        _until(lambda: child.status() in STOPPED)
        taken.append(time.monotonic() - began)
        print(f"{taken[-1]:.3f} s", file=sys.stderr, flush=True)
    return taken


def _idle() -> list[float]:
    """The share of one processor that this process uses while its daemon waits."""
    time.sleep(5.0)
    began = time.process_time()
    time.sleep(IDLE)
    return [(time.process_time() - began) / IDLE]


def _until(what: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + WAIT
    while not what():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def _teach(store: Store) -> None:
    """Corrections to learn from."""
    for number in range(20):
        asked = Interaction(
            messages=(Message("user", f"film night in room {number}"),), answer="music.stop()",
            model="sha256:" + "0" * 64, time=float(10 * number),
        )  # fmt: skip
        wanted = f'light.dim(room="room {number}", level=15)'
        store.add_all([asked, Correction(interaction=asked.id, corrected=wanted, time=asked.time)])


if __name__ == "__main__":
    sys.exit(main())
