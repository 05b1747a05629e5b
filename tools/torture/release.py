"""kill -9 around the release of a private update: whatever left must have been paid for and written down before.

The device's own answer to a signed order, on a real store; what it hands over is written to a pipe, as to the network.
Only training is replaced: by a change of pure noise, so that a round takes milliseconds. The orders are desk orders of
the federation's own tests.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from federation.device import Device
from federation.protocol import Order, sign_order
from federation.release import Release
from federation.server import Operator
from federation.spec import Limits
from store.paths import Home
from store.records import Consent, Egress, Spend, digest
from tests.federation.desk import Fleet, make_delta, make_fleet, make_spec
from tools.torture.common import Outcome, acknowledged, correction, in_child, interaction, new_home, reopen

FRESH_AFTER = 50  # cycles after which a new store is begun, so that ledgers stay short
LINE = len(f"{digest(b'')}\n")  # bytes of one line a child writes
QUIET = make_spec(noise_multiplier=500.0)  # a round costs next to nothing: thousands fit under the cap


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Kill a device `cycles` times at random moments of answering orders."""
    outcome, random_ = Outcome("release"), random.Random(seed)
    fleet = make_fleet(folder / "fleet", 1, limits=Limits(uses_per_correction=10**6))
    release = Operator.open(fleet.folder, fleet.plan, fleet.state, None)._start()
    left: set[str] = set()
    for cycle in range(cycles):
        if cycle % FRESH_AFTER == 0:
            left, home = set(), _home(folder / f"home-{cycle}", fleet)
        child, descriptor = in_child(lambda out, home=home: _answer(home, fleet, release, out))  # type: ignore[misc]
        first = os.read(descriptor, LINE) if random_.random() < 0.8 else b""  # wait until one update has left
        time.sleep(random_.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        new = {line for line in [first.decode().strip(), *acknowledged(descriptor)] if line}
        os.waitpid(child, 0)
        left |= new
        outcome.add("released", len(new))
        outcome.cycles += 1
        _compare(home, left, outcome, cycle)
    if not outcome.facts["released"]:
        outcome.bad.append("nothing was released, so nothing was shown")
    return outcome


def _compare(home: Home, left: set[str], outcome: Outcome, cycle: int) -> None:
    """Every payload that left is in both ledgers, which name the same payloads, and the chain is whole."""
    with reopen(home) as store:
        spent = {spend.payload for spend in store.all(Spend)}
        written = {egress.payload for egress in store.all(Egress)}
        problems = [*store.verify().problems, *([store.damage] if store.damage else [])]
    if cycle % FRESH_AFTER == FRESH_AFTER - 1:
        outcome.add("paid for and not released", len(spent - left))
    if left - spent or spent != written or problems:
        outcome.bad.append(f"cycle {cycle}: {len(left - spent)} unpaid, {len(problems)} problems")


def _home(folder: Path, fleet: Fleet) -> Home:
    """A store with one correction and consent to the fleet."""
    home = new_home(folder)
    with reopen(home) as store:
        said = interaction(1)
        destination = fleet.owners[0].device.membership.fleet
        consent = Consent(purpose="share", granted=True, destination=destination, time=time.time())
        store.add_all([said, correction(said, 1), consent])
    return home


def _answer(home: Home, fleet: Fleet, release: Release, out: int) -> None:
    """Answer one order after the other until killed; say what left once it has."""
    pattern = fleet.owners[0].device
    generator = np.random.default_rng()
    with reopen(home) as store:
        device = Device(
            store, pattern.membership, pattern.key, pattern.geometry,
            lambda _examples, spec, _start: make_delta(spec, lambda shape: generator.normal(0, 1, shape)),
        )  # fmt: skip
        while True:
            reply = device.answer(sign_order(_order(device, release), fleet.key), release.envelope, release.adapter)
            if not reply.payload:
                raise AssertionError(reply.decline)
            os.write(out, f"{digest(reply.payload)}\n".encode())


def _order(device: Device, release: Release) -> Order:
    """A fresh order for this device."""
    return Order(
        fleet=device.membership.fleet, run="run", round=1, nonce=os.urandom(16).hex(),
        device=device.key.public_key().public_bytes_raw().hex(), release=release.manifest.id,
        deadline=time.time() + 600, spec=QUIET,
    )  # fmt: skip
