"""kill -9 of a real fleet's processes: SuperLink, executor, web, the server itself, SuperNodes, workers, devices.

Everything as `corrigible fleet up` and `corrigible fleet run` start it. After each kill the round must end with a
release, or be repeated; nothing may be spent twice, lost or unsigned. A cycle takes about a minute on an idle core.
"""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from cli.demo.owners import OWNERS, requests
from federation.processes import free_ports
from federation.state import OPEN
from store.keys import unlock
from store.paths import Home
from store.records import Correction, Egress, Interaction, Message, Spend
from store.store import Store
from tools.fleet_demo import call_program, program
from tools.torture.common import Outcome

DEVICES = 3
QUORUM = 3
VICTIMS = (
    "flower-superlink", "flower-superexec", "flwr-serverapp", "federation.web", "fleet up",
    "flower-supernode", "federation.worker", "fleet run",
)  # fmt: skip
PATIENCE = 600.0  # seconds until a round must have ended after a kill


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Kill one process of a running fleet in each cycle, at a random moment of a round or between two."""
    outcome, random_ = Outcome("fleet"), random.Random(seed)
    server, homes = _made(folder)
    running = {server: _start(server, "up")} | {
        home: _start(home, "run", "--any-time", "--poll", "3600") for home in homes
    }
    try:
        for cycle in range(cycles):
            victim = VICTIMS[cycle % len(VICTIMS)]
            known = _ended(server)
            between = random_.random() < 0.2
            if not between:
                call_program(server, "fleet", "round", "start", patient=True)
                time.sleep(random_.uniform(0, 25))
            hit = _kill(victim, folder, random_)
            outcome.add(f"{victim} killed", float(hit))
            time.sleep(1)  # until it is gone
            _revive(running)
            if between:
                call_program(server, "fleet", "round", "start", patient=True)
            if not _wait(server, known, running):
                outcome.bad.append(f"cycle {cycle}: no round ended after killing {victim}")
            outcome.bad += [f"cycle {cycle}: {word}" for word in _wrong(server, homes)]
            outcome.cycles += 1
            print(outcome.words(), flush=True)
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            process.wait(60)
    return outcome


def _made(folder: Path) -> tuple[Path, list[Path]]:
    """A server's home and devices' homes with a few corrections."""
    front, console, superlink = map(str, free_ports(3))
    server = folder / "server"
    call_program(
        server, "fleet", "init", "--quorum", str(QUORUM), "--port", front, "--console", console, "--superlink",
        superlink, "--interval", "1e9", "--deadline", "240", "--epsilon", "1000", "--rounds", "1000",
    )  # fmt: skip
    homes = []
    for number in range(DEVICES):
        home = folder / f"device{number}"
        call_program(home, "init", "--key", "file", "--insecure-key-file")
        place = Home.at(home)
        with Store.open(place, unlock(place)) as store:
            for one in requests(OWNERS[number], 8, 0):
                asked = Interaction(messages=(Message("user", one.prompt),), answer="?", model="m", time=time.time())
                store.add_all([asked, Correction(interaction=asked.id, corrected=one.answer, time=time.time())])
        homes.append(home)
    up = _start(server, "up")
    try:
        for home in homes:
            link = call_program(server, "fleet", "enroll", home.name)["link"]
            call_program(home, "fleet", "join", link, "--yes", patient=True)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
    return server, homes


def _start(home: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A command that stays."""
    with (home / f"{words[0]}.log").open("ab") as log:
        return subprocess.Popen(program(home, "fleet", *words, "--json"), stdout=log, stderr=subprocess.STDOUT)


def _kill(victim: str, folder: Path, random_: random.Random) -> bool:
    """kill -9 one process of this fleet whose command line holds `victim`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended while it was looked at
            family = [" ".join(one.cmdline()) for one in (process, *process.parents())]
            if victim in family[0] and any(str(folder) in line for line in family) and process.pid != os.getpid():
                found.append(process)
    if not found:
        return False
    random_.choice(found).send_signal(signal.SIGKILL)
    return True


def _revive(running: "dict[Path, subprocess.Popen[bytes]]") -> None:
    """Start again what its service manager would."""
    for home, process in list(running.items()):
        if process.poll() is not None:
            words = ("up",) if home.name == "server" else ("run", "--any-time", "--poll", "3600")
            running[home] = _start(home, *words)


def _ended(server: Path) -> int:
    """How many rounds are over."""
    return sum(entry.verdict not in OPEN for entry in _state(server).rounds())


def _wait(server: Path, known: int, running: "dict[Path, subprocess.Popen[bytes]]") -> bool:
    """Wait until one more round is over."""
    end = time.monotonic() + PATIENCE
    while _ended(server) <= known:
        if time.monotonic() > end:
            return False
        _revive(running)
        time.sleep(1)
    return True


def _state(server: Path) -> Any:  # noqa: ANN401 - the server's state
    """The server's state."""
    from federation.plan import ServerFolder

    return ServerFolder(Home.at(server).data / "fleet-server").state()


def _wrong(server: Path, homes: list[Path]) -> list[str]:
    """What is not as it must be."""
    state, found = _state(server), []
    state.verify()
    rows = state.releases()
    if [row.number for row in rows] != list(range(len(rows))):
        found.append("a release is missing or was made twice")
    for home in homes:
        place = Home.at(home)
        with Store.open(place, unlock(place)) as store:
            spends = store.all(Spend)
            sent = [one for one in store.all(Egress) if one.purpose == "share"]
        if len({spend.run for spend in spends}) < len(spends):
            found.append("an order was paid for twice")
        if {one.payload for one in sent} != {spend.payload for spend in spends}:
            found.append("bytes left that were not paid for")
    return found
