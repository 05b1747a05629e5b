"""kill -9 of a fleet's server app with its devices, or of its database, in and between rounds.

Nothing may be lost, unsigned or spent twice. The real server app, strategy, state, releases and device code over
encrypted stores; Flower's wire is an in-process Grid, so that a round takes a second. The state is in PostgreSQL where
that is installed, every third kill then hits the database; else in SQLite. `fleet` kills real processes one by one.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from federation import membership, pki, repository
from federation.client_app import respond
from federation.device import Device
from federation.mirror import Mirror, chosen, from_folder
from federation.plan import ServerFolder
from federation.server import Operator
from federation.server_app import collector
from federation.simulation import LoopGrid
from federation.state import OPEN, Node
from learner.lora import LoraWeights
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Consent, Egress, Example, Spend
from store.store import Store
from tests.federation.desk import BASE, GEOMETRY, add_correction, make_delta, make_fleet
from tests.federation.postgres import Postgres
from tools.torture.common import Outcome, in_child

DEVICES = 3
CALM = "calm"  # what a child acknowledges when its rounds are done


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Kill a fleet `cycles` times at random moments, each time let it go on, and look at everything."""
    with contextlib.ExitStack() as stack:
        database = None if Postgres.missing() else stack.enter_context(Postgres.running())
        return _run(folder, cycles, random.Random(seed), database)


def _run(folder: Path, cycles: int, random_: random.Random, database: Postgres | None) -> Outcome:
    """`run`, with a database server or none."""
    outcome = Outcome("rounds")
    plan, server, homes = _fleet(folder, database)
    began = time.monotonic()
    _let_finish(lambda out: _rounds(server, homes, plan, out))
    span = time.monotonic() - began  # of two undisturbed rounds: kills fall anywhere in it
    for cycle in range(cycles):
        child, descriptor = in_child(lambda out: _rounds(server, homes, plan, out))
        time.sleep(random_.uniform(0, span))
        if database is not None and cycle % 3 == 2:
            outcome.add("kills of the database")
            database.kill()
            os.waitpid(child, 0)  # ends by itself: it cannot go on without its state
            database.start()
        else:
            outcome.add("kills of server and devices")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(descriptor)
        repeated = server.state().unfinished() is not None
        outcome.add("of all in a round", float(repeated))
        if not _let_finish(lambda out: _rounds(server, homes, plan, out)):
            outcome.bad.append(f"cycle {cycle}: the next round did not end")
        outcome.bad += [f"cycle {cycle}: {word}" for word in _wrong(server, homes)]
        outcome.cycles += 1
    state = server.state()
    outcome.add("rounds", len(state.rounds()))
    outcome.add("repeated", sum(event.event == "round repeated" for event in state.events()))
    outcome.add("releases", len(state.releases()))
    return outcome


def _fleet(folder: Path, database: Postgres | None) -> tuple[object, ServerFolder, list[Path]]:
    """A server and devices with encrypted stores."""
    made = make_fleet(folder / "fleet", 0)
    if database is not None:
        (made.folder.root / "state.url").write_text(database.new_database())
    state, homes = made.folder.state(), []
    for number in range(DEVICES):
        home = Home.at(folder / f"device{number}").create()
        place = membership.join(
            home.data / "fleet",
            release_key=pki.public_bytes(made.key),
            base=BASE,
            limits=replace(membership.Limits(), epsilon_cap=1e9),
        )
        with Store.create(home, KeyFile()) as store:
            add_correction(store, f"question {number}")
            store.add(Consent(purpose="share", granted=True, destination=place.fleet, time=time.time()))
        state.enroll(Node(node_id=1000 + number, name=f"d{number}", device=pki.public_bytes(place.signing_key()).hex()))
        homes.append(home.root)
    plan = replace(made.plan, rounds=2, pace=replace(made.plan.pace, quorum=2, expected=DEVICES))
    return plan, made.folder, homes


def _rounds(server: ServerFolder, homes: list[Path], plan: object, out: int) -> None:
    """Hold the planned rounds with devices opened afresh, as after a restart of everything."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    answers: dict[int, Callable[[Message], Message | None]] = {}
    for number, root in enumerate(homes):
        home = Home.at(root)
        place = membership.read(home.data / "fleet")
        device = Device(Store.open(home, unlock(home)), place, place.signing_key(), GEOMETRY, _train)
        answers[1000 + number] = lambda message, device=device: respond(device, message)  # type: ignore[misc]
    state = server.state()
    grid = LoopGrid(answers)
    run_name = f"{os.getpid()}-{time.time_ns()}"
    Operator.open(server, plan, state, None).run(run_name, collector(grid, state, plan))  # type: ignore[arg-type]
    os.write(out, CALM.encode())


def _train(_examples: list[Example], spec: object, _start: LoraWeights) -> object:
    """Noise and nothing else, after a moment."""
    time.sleep(0.02)
    return make_delta(spec, lambda shape: np.random.default_rng().normal(0, 0.01, shape))  # type: ignore[arg-type]


def _let_finish(work: Callable[[int], None]) -> bool:
    """Run `work` in a child to its end; say whether it got there."""
    child, descriptor = in_child(work)
    said = b""
    while part := os.read(descriptor, 4096):
        said += part
    os.close(descriptor)
    os.waitpid(child, 0)
    return said == CALM.encode()


def _wrong(server: ServerFolder, homes: list[Path]) -> list[str]:
    """What is not as it must be after a kill and a restart."""
    state, found = server.state(), []
    state.verify()
    if any(entry.verdict in OPEN for entry in state.rounds()):
        found.append("a round is open")
    rows = state.releases()
    if [row.number for row in rows] != list(range(len(rows))):
        found.append("a release is missing or was made twice")
    asked = {entry.run for entry in state.rounds()}
    for root in homes:
        home = Home.at(root)
        place = membership.read(home.data / "fleet")
        with Store.open(home, unlock(home)) as store:
            spends, sent = store.all(Spend), store.all(Egress)
        runs = [spend.run for spend in spends]
        if len(set(runs)) < len(runs) or len(runs) > len(asked):
            found.append("an order was paid for twice")
        if {one.payload for one in sent} != {spend.payload for spend in spends}:
            found.append("bytes left that were not paid for")
        if sum(one.epsilon for one in sent) != sum(spend.epsilon for spend in spends):
            found.append("egress and spends disagree")
        mirror = Mirror(place.metadata, repository.root_of(server), from_folder(server.repository))
        offer = chosen(mirror.offers(), place.device_id())
        if offer is None or place.accept(*mirror.download(offer)).manifest.round != rows[-1].number:
            found.append("the newest release is not offered, or not signed")
    return found
