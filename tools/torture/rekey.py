"""kill -9 during key rotation: afterwards exactly one key opens the store, and everything is in it."""

import os
import random
import signal
import time
from pathlib import Path

from store.errors import WrongKey
from store.keychange import rotate
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Interaction
from store.store import Store
from tools.torture.common import Outcome, in_child, new_home

ROWS = 100


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Rotate `cycles` times, killed at a random moment each."""
    outcome, random_ = Outcome("rekey"), random.Random(seed)
    home = new_home(folder / "rekey", ROWS)
    with Store.open(home, unlock(home)) as store:
        name = store.put_artefact(b"adapter" * 20_000)
    started = time.perf_counter()
    rotate(home, unlock(home), KeyFile())
    usual = time.perf_counter() - started
    for cycle in range(cycles):
        old = unlock(home)
        child, descriptor = in_child(lambda _, old=old: _rotate(home, old))  # type: ignore[misc]
        os.close(descriptor)
        time.sleep(random_.uniform(0, usual * 1.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        outcome.cycles += 1
        problem = _check(home, old, name, outcome)
        usual *= 0.9 if unlock(home).export() != old.export() else 1.1  # stay around the moment of the change
        if problem:
            outcome.bad.append(f"cycle {cycle}: {problem}")
    return outcome


def _rotate(home: Home, old: Keys) -> None:
    rotate(home, old, KeyFile())


def _check(home: Home, old: Keys, name: str, outcome: Outcome) -> str:
    """What is wrong after the kill; empty when nothing is."""
    now = unlock(home)
    changed = now.export() != old.export()
    outcome.add("new key" if changed else "old key")
    with Store.open(home, now) as store:
        if store.count(Interaction) != ROWS or not store.verify().ok or store.damage:
            return "content"
        if len(store.artefact(name)) != 140_000:
            return "artefact"
    if len([path for path in home.data.iterdir() if path.name != "key.json"]) != 2:
        return "debris"
    if changed:
        try:
            Store.open(home, old).close()
        except WrongKey:
            return ""
        return "both keys open"
    return ""
