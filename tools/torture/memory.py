"""Looks for the keys in the memory of a process: while the store is open, and after it was closed and locked.

A child opens the store, works, closes it and wipes its keys; the parent reads the child's memory. While it is open
the database key must be found, or the search is blind. Needs root on Linux: a process with keys lets nobody else look.
"""

import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from store.keys import Keys, unlock
from store.paths import Home
from store.records import Interaction
from tools.torture.common import Outcome, correction, in_child, interaction, new_home, reopen

SUBKEYS = ("database", "artefacts", "ledger", "exports")
_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r")


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:  # noqa: ARG001 - keys are random by nature
    """Open, work and close in `cycles` processes and count what is left of their keys."""
    outcome = Outcome("memory")
    for cycle in range(cycles):
        home = Home.at(folder / f"memory-{cycle}")
        maker, done = in_child(lambda _, home=home: new_home(home.root) and None)  # type: ignore[misc]
        os.waitpid(maker, 0)  # so that the next child inherits nothing of the making
        os.close(done)
        _one(home, outcome)
    outcome.facts["core after a crash"] = _core()
    outcome.bad += ["a crash leaves a core"] if outcome.facts["core after a crash"] else []
    return outcome


def _one(home: Home, outcome: Outcome) -> None:
    """One process: what is found while the store is open, and after."""
    ours, its = os.pipe()

    def work(out: int) -> None:
        os.close(its)
        keys = unlock(home)
        store = reopen(home)
        said = [interaction(number) for number in range(50)]
        store.add_all([*said, *(correction(one, 0) for one in said)])
        store.artefact(store.put_artefact(bytes(100_000)))
        store.search("request")
        store.remove(said[0].id)
        assert store.all(Interaction)
        os.write(out, b"o")
        os.read(ours, 1)
        store.close()
        keys.wipe()
        os.write(out, b"c")
        os.read(ours, 1)

    child, descriptor = in_child(work)
    os.read(descriptor, 1)
    keys = unlock(home)
    opened = copies(child, keys)
    os.write(its, b".")
    os.read(descriptor, 1)
    closed = copies(child, keys)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for end in (descriptor, ours, its):
        os.close(end)
    outcome.cycles += 1
    outcome.add("copies while open", sum(opened.values()))
    outcome.add("copies after closing", sum(closed.values()))
    outcome.bad += [] if opened["database"] else ["the search is blind"]
    outcome.bad += [f"{name} after closing" for name, number in closed.items() if number]


def copies(process: int, keys: Keys) -> dict[str, int]:
    """How often the data key and each subkey, raw or in hex, stand in the readable memory of `process`."""
    raw = {"data": keys.export(), **{name: keys.sub(name) for name in SUBKEYS}}  # type: ignore[arg-type]
    wanted = raw | {f"{name} in hex": key.hex().encode() for name, key in raw.items()}
    found = dict.fromkeys(wanted, 0)
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            match = _REGION.match(line)
            if match and "[v" not in line:
                data = _region(memory.seek, memory.read, int(match[1], 16), int(match[2], 16))
                for name, key in wanted.items():
                    found[name] += data.count(key)
    return found


def _region(seek: Callable[[int], int], read: Callable[[int], bytes | None], start: int, end: int) -> bytes:
    """The bytes from `start` to `end`; nothing where the system does not give them."""
    try:
        seek(start)
        return read(end - start) or b""
    except OSError:
        return b""


def _core() -> bool:
    """Whether a process that forbade it leaves a core when it crashes, although the shell allowed one."""
    from store.keys import forbid_core_dumps

    child = os.fork()
    if child == 0:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        forbid_core_dumps()
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    return os.WCOREDUMP(os.waitpid(child, 0)[1])
