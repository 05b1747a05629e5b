"""Single flipped bits in the database and in the WAL, and a deleted WAL: all must be reported."""

import os
import random
from pathlib import Path

from store.keys import unlock
from store.paths import Home
from tools.torture.common import Outcome, acknowledged, correction, found_wrong, in_child, interaction, new_home, reopen


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Flip `cycles` bits in the database and half as many in the WAL."""
    outcome, random_ = Outcome("flips"), random.Random(seed)
    closed = new_home(folder / "flips")
    with reopen(closed) as store:
        said = [interaction(number) for number in range(120)]
        store.add_all([*said, *(correction(one, 0) for one in said)])
        store.remove_all([one.id for one in said[:20]])
    _flip_each(closed, closed.generation(1) / "store.db", cycles, random_, outcome)
    crashed = _crashed(folder / "wal")
    wal = crashed.generation(1) / "store.db-wal"
    _flip_each(crashed, wal, cycles // 2, random_, outcome)
    wal.unlink()
    outcome.add("deleted WAL reported", bool(found_wrong(crashed, unlock(crashed))))
    if outcome.facts["deleted WAL reported"] != 1:
        outcome.bad.append("deleted WAL not reported")
    return outcome


def _crashed(folder: Path) -> Home:
    """A store whose last 60 records are in the WAL only, because its writer died."""
    home = new_home(folder, 20)

    def work(_: int) -> None:
        store = reopen(home)
        for number in range(100, 160):
            store.add(interaction(number))
        os._exit(0)

    child, descriptor = in_child(work)
    acknowledged(descriptor)
    os.waitpid(child, 0)
    return home


def _flip_each(home: Home, target: Path, cycles: int, random_: random.Random, outcome: Outcome) -> None:
    """Flip `cycles` random bits of `target`, one at a time, each from the same state."""
    state = _state(home)
    keys, whole = unlock(home), state[target]
    for _ in range(cycles):
        position, bit = random_.randrange(len(whole)), random_.randrange(8)
        _put_back(home, state)
        with target.open("r+b") as file:
            file.seek(position)
            file.write(bytes([whole[position] ^ (1 << bit)]))
        outcome.cycles += 1
        reported = found_wrong(home, keys)
        outcome.add(f"{target.suffix} reported", bool(reported))
        if not reported:
            outcome.bad.append(f"{target.name} byte {position} bit {bit}")
    _put_back(home, state)


def _state(home: Home) -> dict[Path, bytes]:
    """The files that a check may change."""
    paths = [*home.generation(1).glob("store.db*"), home.anchor(1)]
    return {path: path.read_bytes() for path in paths if not path.name.endswith("-shm")}


def _put_back(home: Home, state: dict[Path, bytes]) -> None:
    for path in home.generation(1).glob("store.db*"):
        if path not in state:
            path.unlink()
    for path, data in state.items():
        path.write_bytes(data)
