"""kill -9 while writing: every acknowledged record must be there afterwards, and nothing may look damaged."""

import os
import random
import signal
import time
from pathlib import Path

from store.paths import Home
from tools.torture.common import Outcome, acknowledged, correction, in_child, interaction, lost, new_home, reopen

FRESH_AFTER = 100  # cycles after which a new store is begun, to keep opening and checking quick


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Kill a writer `cycles` times at random moments."""
    outcome, random_ = Outcome("kill"), random.Random(seed)
    acks: set[str] = set()
    for cycle in range(cycles):
        if cycle % FRESH_AFTER == 0:
            acks, home = set(), new_home(folder / f"kill-{cycle}")
        child, descriptor = in_child(lambda out, home=home, cycle=cycle: _write(home, cycle, out))  # type: ignore[misc]
        if random_.random() < 0.8:
            os.read(descriptor, 1)  # the store is open
        time.sleep(random_.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        new = acknowledged(descriptor)
        os.waitpid(child, 0)
        new = [id for id in new if id]
        acks.update(new)
        outcome.add("acknowledged", len(new))
        outcome.cycles += 1
        with reopen(home) as store:
            missing = lost(store, acks)
            problems = [*store.verify().problems, *([store.damage] if store.damage else [])]
        outcome.add("lost", len(missing))
        if missing or problems:
            outcome.bad.append(f"cycle {cycle}: {len(missing)} lost, {len(problems)} problems")
    return outcome


def _write(home: Home, cycle: int, out: int) -> None:
    """Write until killed: single records, pairs, and now and then an artefact."""
    store = reopen(home)
    os.write(out, b"\n")
    number = cycle * 100_000
    while True:
        number += 1
        said = interaction(number, size=random.randrange(50, 4000))
        ids = store.add_all([said, correction(said, number)]) if number % 3 == 0 else [store.add(said)]
        os.write(out, "".join(f"{id}\n" for id in ids).encode())
        if number % 20 == 0:
            store.put_artefact(os.urandom(5000))
