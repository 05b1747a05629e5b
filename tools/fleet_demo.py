"""A desk fleet by commands alone: a server and three devices as processes of their own, rounds, a release, a newcomer.

``python -m tools.fleet_demo [--corrections N] [--rounds N] [--keep FOLDER]``. Where the machine allows it everything
runs in a network namespace that has loopback and nothing else. Ends with exit code 1 when a claim does not hold.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from cli.demo.exam import Paper
from cli.demo.owners import NEWCOMER, OWNERS, Owner, requests
from federation.claim import claim
from federation.processes import free_ports
from feedback.engine import Engine
from feedback.models import check_model, embedded_model
from feedback.recorder import Recorder, correct, rate
from store.keys import unlock
from store.paths import Home
from store.records import Consent, Message
from store.store import Store

DEVICES = 3
NEWCOMER_TALKS = 40
PATIENCE = 900.0  # seconds any one thing may take on a busy machine
NO_NETWORK = 17  # exit code
NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def main() -> int:
    """Run the demonstration and say what held."""
    parser = argparse.ArgumentParser(prog="python -m tools.fleet_demo", description=__doc__)
    parser.add_argument("--corrections", type=int, default=320, help="requests that each owner makes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    given = parser.parse_args()
    alone = _own_network()
    root = given.keep or Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    try:
        return _demonstrate(root, given.corrections, given.rounds, given.seed, alone)
    finally:
        if given.keep is None:
            shutil.rmtree(root, ignore_errors=True)


def _demonstrate(root: Path, count: int, rounds: int, seed: int, alone: bool) -> int:
    began = time.monotonic()
    front, console, superlink = free_ports(3)
    words = f"in a network namespace of its own: {'yes' if alone else 'not allowed here'}"
    print(f"A desk fleet in {root}; {words}", flush=True)
    call_program(
        root / "server", "fleet", "init", "--operator", "the demonstration", "--quorum", str(DEVICES), "--rounds",
        str(rounds), "--port", str(front), "--console", str(console), "--superlink", str(superlink),
        "--interval", "1e10", "--deadline", str(PATIENCE),
    )  # fmt: skip
    homes = [root / f"device{number}" for number in range(1, DEVICES + 2)]
    for home, owner in zip(homes, [*OWNERS[:DEVICES], NEWCOMER], strict=True):
        call_program(home, "init", "--key", "file", "--insecure-key-file")
        last = home == homes[-1]
        corrected = talk(home, owner, NEWCOMER_TALKS if last else count, seed)
        print(f"  {owner.name}: {corrected} corrections", flush=True)
    with _running(root / "server", "fleet", "up", "--json", log=root / "server.log"):
        _until(lambda: _status(root / "server")["running"], "the server")
        for home in homes:
            link = call_program(root / "server", "fleet", "enroll", home.name)["link"]
            call_program(home, "fleet", "join", link, "--yes", patient=True)
        before = exam(homes[-1], NEWCOMER, seed)
        with _all_running(homes[:-1], root):
            reports = [call_program(root / "server", "fleet", "round", "start", "--wait", "--timeout", str(PATIENCE))
                       for _ in range(rounds)]  # fmt: skip
            for report in reports:
                print(f"  round {report['round']}: {report['accepted']} of {report['asked']} devices, "
                      f"{report['bytes_in']:,} bytes in, {report['verdict']}", flush=True)  # fmt: skip
        verdict = call_program(homes[-1], "fleet", "receive")
        after = exam(homes[-1], NEWCOMER, seed)
        status = _status(root / "server")
    sent = [call_program(home, "privacy", "ledger") for home in homes]
    return _claims(reports, verdict, before, after, status, sent, time.monotonic() - began)


def _claims(
    reports: list[dict[str, Any]],
    verdict: dict[str, Any],
    before: dict[str, float],
    after: dict[str, float],
    status: dict[str, Any],
    sent: list[dict[str, Any]],
    seconds: float,
) -> int:
    """Print what held; 1 when something did not."""
    updates = [[one for one in ledger["egress"] if one["purpose"] == "share"] for ledger in sent]
    sizes = sorted({one["size"] for one in chain.from_iterable(updates)})
    totals = [max((one["total"] for one in ledger["spends"]), default=0.0) for ledger in sent]
    cost, said = claim(max(totals), status["delta"], status["unit"]), status["epsilon_total"]
    claims = {
        f"{len(reports)} rounds, each with all {DEVICES} devices and a signed release": all(
            one["verdict"] == "released" and one["accepted"] == DEVICES for one in reports
        ),
        f"the fourth device's gate adopted the release (gain {verdict['gain']:.1f} points, "
        f"{verdict['interval'][0]:.1f} to {verdict['interval'][1]:.1f})": verdict["decision"] == "adopt",
        f"its held-out error fell: {before['error']:.1f} -> {after['error']:.1f} % wrong, "
        f"{before['loss']:.3f} -> {after['loss']:.3f} nats a token": after["loss"] < before["loss"]
        and after["error"] <= before["error"],
        "it never sent an update": not updates[-1],
        f"{cost}, as the server says ({said:.2f})": all(abs(total - said) < 1e-6 for total in totals[:-1]),
        f"every update has one size: {sizes} bytes": len(sizes) == 1,
        f"the audit log is whole ({status['audit']['entries']} entries)": status["audit"]["whole"],
    }
    for words, holds in claims.items():
        print(f"{'holds ' if holds else 'FAILS '} {words}")
    print(f"{seconds:.0f} s")
    return 0 if all(claims.values()) else 1


def talk(home: Path, owner: Owner, count: int, seed: int) -> int:
    """Let an owner ask the model `count` things and correct what is wrong; return how many were corrected."""
    place, corrected = Home.at(home), 0
    with Store.open(place, unlock(place)) as store, Engine(check_model(embedded_model())) as engine:
        now = time.time()
        store.add_all([Consent(purpose=purpose, granted=True, time=now) for purpose in ("log", "learn")])
        recorder = Recorder(store, engine)
        for one in requests(owner, count, seed):
            asked = recorder.answer((Message("user", one.prompt),))
            if asked.answer == one.answer:
                rate(store, asked.id, 1)
            else:
                correct(store, asked.id, one.answer)
                corrected += 1
    return corrected


def exam(home: Path, owner: Owner, seed: int) -> dict[str, float]:
    """Return the share of unseen requests answered wrongly (percent) and their loss by what the device serves now."""
    place = Home.at(home)
    with Store.open(place, unlock(place)) as store, Engine(check_model(embedded_model())) as engine:
        active = [name for slot in ("shared", "personal") if (name := store.active(slot)) is not None]
        engine.set_stack([(name, store.artefact(name)) for name in active])
        said = {one.prompt for one in requests(owner, NEWCOMER_TALKS, seed)}
        scores = engine.score_many(Paper.of(owner, said, seed, engine.model.path).unseen)
    wrong = sum(not score.exact for score in scores)
    return {"error": 100 * wrong / len(scores), "loss": -sum(score.logprob for score in scores) / len(scores)}


def _own_network() -> bool:
    """Move into a network namespace with loopback only, where the machine allows it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.unshare(NEW_NETWORK) != 0:
        return False
    return subprocess.run(["ip", "link", "set", "lo", "up"], check=False).returncode == 0


def program(home: Path, *words: str) -> list[str]:
    """Return the command line of the program on a home."""
    return [sys.executable, "-m", "cli.main", "--home", str(home), *words]


def call_program(home: Path, *words: str, patient: bool = False) -> dict[str, Any]:
    """Run one command of the program and return its data; a patient call waits for a server that is coming up."""
    end = time.monotonic() + (PATIENCE if patient else 0.0)
    while True:
        done = subprocess.run([*program(home, *words), "--json"], capture_output=True, text=True, check=False)
        if done.returncode != NO_NETWORK or time.monotonic() > end:
            break
        time.sleep(2)
    if done.returncode not in (0, 3, 15):
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not answer["ok"]:
        raise SystemExit(f"{' '.join(words)}: {answer['error']}")
    data: dict[str, Any] = answer["data"]
    return data


def _status(home: Path) -> dict[str, Any]:
    """The server's status."""
    server: dict[str, Any] = call_program(home, "fleet", "status")["server"]
    return server


@contextmanager
def _running(home: Path, *words: str, log: Path) -> Iterator[None]:
    """A command that stays, as a process of its own."""
    with log.open("ab") as out:
        process = subprocess.Popen(program(home, *words), stdout=out, stderr=subprocess.STDOUT, env={**os.environ})
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _all_running(homes: list[Path], root: Path) -> Iterator[None]:
    """Several devices taking part."""
    if not homes:
        yield
        return
    log = root / f"{homes[0].name}.log"
    with _running(homes[0], "fleet", "run", "--any-time", "--json", log=log), _all_running(homes[1:], root):
        yield


def _until(ready: Callable[[], bool], what: str) -> None:
    """Wait until something is there."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come up")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
