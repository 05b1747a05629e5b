"""A full or failing disk at every n-th write: the error surfaces, and nothing acknowledged is lost.

A small library loaded before libc (`faults.c`, built here with the C compiler) makes the n-th write, sync or
truncation fail, once or from then on. `cycles` is the number of commits of the trace; every write in it is hit. So that
the last ones need not repeat all before them, the trace begins anew every few commits from what a crash left there.
"""

import ctypes
import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

from store.errors import CorrigibleError
from store.keys import unlock
from store.paths import Home
from store.store import Store
from tools.torture.common import Outcome, acknowledged, in_child, interaction, lost, new_home, snapshot

LIBRARY = "TORTURE_FAULTS"
STRETCH = 10  # commits between two beginnings
FIRST = 1000  # number of the first record
AFTER = 3  # adds tried after the first that failed: the writer goes on, or goes on refusing
KINDS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


def run(folder: Path, cycles: int, seed: int = 1, every: int = 1) -> Outcome:
    """Fail each write of a trace of `cycles` commits, each error, once and from then on (`every`: only each n-th)."""
    if LIBRARY not in os.environ:
        return _again_with_library(folder, cycles, seed, every)
    starts = _record(folder, cycles)
    plans = []
    for start in starts:
        length = min(STRETCH, cycles - start)
        home = _again(folder, start, "count")
        writes = _attempt(home, 0, errno.EIO, False, start, length)[1]
        for name in KINDS:
            plans += [(folder, start, length, name, False, range(1, writes + 1, every))]
            plans += [(folder, start, length, name, True, range(1, writes + 1, 5 * every))]
    outcome = Outcome("ioerror", facts={"writes in the trace": sum(len(plan[-1]) * every for plan in plans[::4])})
    with multiprocessing.get_context("fork").Pool(4) as pool:  # they wait for the disk as much as they compute
        for part in pool.starmap(_many, plans):
            outcome.cycles += part.cycles
            outcome.bad += part.bad
            for fact, number in part.facts.items():
                outcome.add(fact, float(number))
    return outcome


def _record(folder: Path, commits: int) -> list[int]:
    """Write the trace once; keep what a crash would leave before every STRETCH-th commit."""
    home = new_home(folder / "trace", 5)

    def work(_: int) -> None:
        store = Store.open(home, unlock(home))
        for number in range(commits):
            if number % STRETCH == 0:
                snapshot(home, folder / f"before-{number}")
            store.add(interaction(FIRST + number))
        os._exit(0)

    child, descriptor = in_child(work)
    acknowledged(descriptor)
    os.waitpid(child, 0)
    return list(range(0, commits, STRETCH))


def _again(folder: Path, start: int, name: str) -> Home:
    """A home as it was before commit `start`."""
    home = Home.at(folder / f"{start}-{name}")
    snapshot(Home.at(folder / f"before-{start}"), home.root)
    return home


def _many(folder: Path, start: int, length: int, name: str, stays: bool, places: range) -> Outcome:
    """Hit each of `places` with one kind of error, once or from then on."""
    outcome = Outcome(name)
    for nth in places:
        _one(_again(folder, start, f"{name}-{stays}"), nth, name, stays, start, length, outcome)
    return outcome


def _one(home: Home, nth: int, error: str, sticky: bool, start: int, commits: int, outcome: Outcome) -> None:
    """Hit one write and check what is left."""
    lines, _ = _attempt(home, nth, KINDS[error], sticky, start, commits)
    acks = {line for line in lines if line.startswith("sha256:")}
    errors = [line for line in lines if line.startswith("error ")]
    outcome.cycles += 1
    outcome.add("acknowledged", len(acks))
    outcome.add(f"{error} surfaced", bool(errors))
    where = f"{error} at write {nth} after commit {start}{' and on' if sticky else ''}"
    if "end" not in lines:
        outcome.bad.append(f"{where}: {lines[-1] if lines else 'nothing'}")
    tried = sum(line.startswith("add ") for line in lines)
    if len(acks) + len([line for line in errors if line.endswith("add")]) != tried:
        outcome.bad.append(f"{where}: an add neither acknowledged nor refused")
    acks |= {interaction(number).id for number in range(FIRST, FIRST + start)}
    try:
        with Store.open(home, unlock(home)) as store:
            missing, broken = lost(store, acks), store.damage or not store.verify().ok
    except CorrigibleError as problem:
        outcome.bad.append(f"{where}: {problem.code}")
        return
    outcome.add("lost", len(missing))
    if missing or broken:
        outcome.bad.append(f"{where}: {len(missing)} lost" + (", damaged" if broken else ""))


def _attempt(home: Home, nth: int, error: int, sticky: bool, start: int, commits: int) -> tuple[list[str], int]:
    """Write in a child whose n-th write fails; returns what it said and how many writes it counted."""
    child, descriptor = in_child(lambda out: _write(home, nth, error, sticky, start, commits, out))
    lines = acknowledged(descriptor)
    os.waitpid(child, 0)
    count = next((int(line.split()[1]) for line in lines if line.startswith("writes ")), 0)
    return lines, count


def _write(home: Home, nth: int, error: int, sticky: bool, start: int, commits: int, out: int) -> None:
    """Open, add one by one and go on a little after an error, close; every outcome is said on the pipe."""
    faults = ctypes.CDLL(os.environ[LIBRARY])
    faults.torture_arm(ctypes.c_long(nth), error, sticky)

    def say(words: str) -> None:
        os.write(out, f"{words}\n".encode())

    try:
        with Store.open(home, unlock(home)) as store:
            left = commits
            for number in range(FIRST + start, FIRST + start + commits):
                say(f"add {number}")
                try:
                    say(store.add(interaction(number)))
                except CorrigibleError as problem:
                    say(f"error {problem.code} add")
                    left = min(left, AFTER + 1)
                left -= 1
                if not left:
                    break
    except CorrigibleError as problem:
        say(f"error {problem.code} store")
    say(f"writes {faults.torture_count()}")
    say("end")


def _again_with_library(folder: Path, cycles: int, seed: int, every: int) -> Outcome:
    """Build the library and run this torture in a process that has it loaded."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    compiler = next((found for name in ("cc", "gcc", "clang", "c++", "g++") if (found := shutil.which(name))), "cc")
    subprocess.run(
        [compiler, "-x", "c", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    script = (
        "import json, pathlib; from dataclasses import asdict; from tools.torture import ioerror;"
        f"print(json.dumps(asdict(ioerror.run(pathlib.Path({str(folder)!r}), {cycles}, {seed}, {every}))))"
    )
    environment = os.environ | {"LD_PRELOAD": str(library), LIBRARY: str(library)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))
