"""Virtual devices and a round to ask them in; a device is a key and answers with random, rightly signed updates."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from federation import strategy
from federation.aggregate import Rule, aggregate
from federation.pki import public_bytes
from federation.protocol import Order, SignedOrder, open_order, reply_fields, sign_reply
from federation.release import Manifest, Release, fleet_identity, sign
from federation.simulation import LoopGrid
from federation.spec import Pace, RoundSpec, wire_scale
from federation.tally import Tally
from federation.update import Expected, PrivateUpdate
from store.records import digest

MEGABYTE = 1 << 20
BASE = digest(b"a base model")


@dataclass(frozen=True)
class Frame:
    """What is public of one round of updates of `count` bytes."""

    key: Ed25519PrivateKey
    release: Release
    order: Order
    expected: Expected


def frame(count: int) -> Frame:
    """A round whose updates have `count` coordinates of 8 bits."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    figures = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "steps": 4, "divisor": 16.0, "learning_rate": 1.0}
    quantum, bound = wire_scale(**figures, count=count)  # type: ignore[arg-type]
    spec = RoundSpec(
        **figures,  # type: ignore[arg-type]
        sampling_rate=1.0,
        rank=4,
        alpha=8.0,
        seed_a=7,
        layers=1,
        quantum=quantum,
        max_norm=bound,
    )
    key = Ed25519PrivateKey.generate()
    fleet, adapter = fleet_identity(public_bytes(key)), bytes(1000)
    facts = {"cohort": 0, "epsilon": 0.0, "epsilon_total": 0.0, "delta": 1e-6, "max_norm": 0.0, "time": time.time()}
    manifest = Manifest(
        fleet=fleet,
        base=BASE,
        parent=None,
        round=0,
        adapter=digest(adapter),
        size=len(adapter),
        mechanism=spec,
        **facts,  # type: ignore[arg-type]
    )
    release = sign(manifest, adapter, key)
    asked = {"run": "run", "round": 1, "nonce": "", "device": "", "deadline": time.time() + 3600}
    order = Order(fleet=fleet, release=manifest.id, spec=spec, **asked)  # type: ignore[arg-type]
    return Frame(key, release, order, Expected(BASE, manifest.id, 1, spec, (("w", count // 4, 4),)))


class VirtualDevice:
    """Checks the fleet's signature as a device does, and answers with one of a few updates made beforehand."""

    def __init__(self, of: Frame, payloads: list[bytes]) -> None:
        self.key = Ed25519PrivateKey.generate()
        self._fleet, self._payloads = public_bytes(of.key), payloads

    @property
    def device(self) -> str:
        """The key as the roster names it."""
        return public_bytes(self.key).hex()

    def __call__(self, message: Message) -> Message:
        """Answer one order."""
        asked = message.content["order"]
        order = open_order(SignedOrder(asked["body"], asked["signature"]), self._fleet)
        reply = sign_reply(order, self._payloads[int(order.nonce[0], 16) % len(self._payloads)], self.key)
        return Message(RecordDict({"reply": ConfigRecord(dict(reply_fields(reply)))}), reply_to=message)


def crowd(of: Frame, devices: int) -> dict[int, VirtualDevice]:
    """Virtual devices by node id."""
    deviation = of.expected.spec.max_norm / 1.25 / of.expected.count**0.5 / of.expected.spec.quantum
    dice = np.random.default_rng(1)
    levels = [np.rint(dice.normal(0, min(deviation, 30), of.expected.count)).astype(np.int8) for _ in range(4)]
    payloads = [PrivateUpdate(of.expected, each).encode() for each in levels]
    return {node: VirtualDevice(of, payloads) for node in range(1, devices + 1)}


def hold(of: Frame, grid: LoopGrid, nodes: Mapping[int, str], rule: Rule = "mean") -> Tally:
    """Hold the round with these nodes (node id -> device key) to its result; return the counts."""
    into = aggregate(of.expected, rule, scratch=Path(tempfile.gettempdir()))
    pace = Pace(deadline=3600.0, poll=0.001)
    tally = strategy.collect(grid, nodes, of.order, b"s" * 32, of.release, of.expected, of.key, pace, into)
    into.result()
    into.close()
    return tally


def keys(devices: Mapping[int, VirtualDevice]) -> dict[int, str]:
    """Node id -> device key."""
    return {node: each.device for node, each in devices.items()}
