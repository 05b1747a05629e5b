"""Old copies put back: the whole database, or one old page that still authenticates."""

import random
from pathlib import Path

from store.keys import unlock
from tools.torture.common import Outcome, correction, found_wrong, interaction, new_home, reopen

PAGE = 4096
STEPS = 40  # states of the database to roll back to


def run(folder: Path, cycles: int, seed: int = 1, steps: int = STEPS) -> Outcome:
    """Put back `cycles` whole files and `cycles` single pages."""
    outcome, random_ = Outcome("rollback"), random.Random(seed)
    home = new_home(folder / "rollback")
    database = home.generation(1) / "store.db"
    states = []
    for step in range(steps):
        states.append(database.read_bytes())
        with reopen(home) as store:
            said = [interaction(step * 100 + number, size=random_.randrange(50, 2500)) for number in range(12)]
            store.add_all([*said, *(correction(one, step) for one in said)])
            if step % 3 == 2:
                store.remove_all([one.id for one in said[:4]])
    now, anchor, keys = database.read_bytes(), home.anchor(1).read_bytes(), unlock(home)
    for cycle in range(2 * cycles):
        old = random_.choice(states)
        if cycle % 2:
            pages = [page for page in range(min(len(old), len(now)) // PAGE) if _at(old, page) != _at(now, page)]
            page = random_.choice(pages)
            old, what = now[: page * PAGE] + _at(old, page) + now[(page + 1) * PAGE :], "page"
        else:
            what = "file"
        database.write_bytes(old)
        home.anchor(1).write_bytes(anchor)
        outcome.cycles += 1
        reported = found_wrong(home, keys)
        outcome.add(f"{what}s reported", bool(reported))
        if not reported:
            outcome.bad.append(f"{what} in cycle {cycle}" + (f" (page {page})" if what == "page" else ""))
    return outcome


def _at(data: bytes, page: int) -> bytes:
    return data[page * PAGE : (page + 1) * PAGE]
