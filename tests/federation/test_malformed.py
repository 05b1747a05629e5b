"""Hostile replies by the thousand through Flower's own encoding: each is counted with its reason, nothing changes."""

import random
from collections import Counter
from dataclasses import dataclass, replace

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from federation import strategy
from federation.aggregate import aggregate
from federation.client_app import respond
from federation.pki import public_bytes
from federation.server import Operator
from federation.simulation import Answer, LoopGrid, Raw
from tests.federation.desk import Fleet
from tests.federation.hostile import ATTACKS, Attack, Hostile, replayed

COUNT = 1_000  # the long form, with ten times as many, is `python -m bench.fleet malformed`
GROWTH = 100 * 2**20  # bytes


class Round:
    """One round of `fleet` over any nodes, without a release at its end."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        operator = Operator.open(fleet.folder, fleet.plan, fleet.state)
        self.fleet, self.release = fleet, operator._start()
        self.entry = operator._open(name, self.release)
        self.order, self.expected = operator._order(self.entry.run, self.release), operator._expected(self.release)
        self.into = aggregate(self.expected)

    def hold(self, answers: dict[int, Answer], roster: dict[int, str]) -> Counter[str]:
        """Collect from all; return the rejects by reason."""
        pace = replace(self.fleet.plan.pace, deadline=600.0, poll=0.001)
        frame = (self.order, self.entry.secret, self.release, self.expected, self.fleet.key, pace, self.into)
        self.tally = strategy.collect(LoopGrid(answers, at_once=None), roster, *frame)
        return self.tally.rejected


def honest(fleet: Fleet) -> tuple[dict[int, Answer], dict[int, str]]:
    """The fleet's own devices."""
    return {owner.node_id: lambda m, o=owner: respond(o.device, m) for owner in fleet.owners}, fleet.roster


def test_each_kind_of_hostile_reply_is_counted_under_its_reason(fleet: Fleet) -> None:
    """One of each kind, one at a time, with the words it may be counted under."""
    me = Hostile(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), random.Random(1))
    device = public_bytes(me.key).hex()
    for number, (name, (attack, reasons)) in enumerate(ATTACKS.items()):
        this = Round(fleet, f"round {number}")
        rejected = this.hold({7: lambda message, a=attack: a(me, message)}, {7: device})
        assert rejected.total() == 1, name
        assert set(rejected) <= reasons, name
        assert this.into.count == this.tally.bytes_in == 0, name
        fleet.state.report(this.entry.run, "over", {**this.entry.report})


def test_a_thousand_hostile_replies_change_nothing(fleet: Fleet) -> None:
    """All are rejected with a reason, the three honest devices count, and memory grows by less than 100 MB."""
    seen = flood(fleet, COUNT)
    assert seen.rejected.total() == COUNT
    assert (seen.accepted, seen.missing, seen.admitted) == (3, 0, 3)
    assert seen.sent >= COUNT
    assert seen.growth < GROWTH
    reasons = {"format", "size", "signature", "unreadable", "range", "norm", "magic", "round", "error"}
    assert set(seen.rejected) >= reasons


@dataclass(frozen=True)
class Flooded:
    """What one round with hostile devices came to."""

    rejected: Counter[str]
    accepted: int
    missing: int
    admitted: int  # to the sum
    sent: int
    growth: int  # bytes of memory, at most


def flood(fleet: Fleet, count: int) -> Flooded:
    """Hold one round with `count` hostile devices beside the fleet's own."""
    dice = random.Random(2)
    answers, roster = honest(fleet)
    first, earlier = Round(fleet, "earlier"), []
    first.hold(
        {1: lambda m: earlier.append(respond(fleet.owners[0].device, m)) or earlier[-1]}, {1: fleet.roster[1000]}
    )
    fleet.state.report(first.entry.run, "over", {**first.entry.report})
    kinds = {**{name: attack for name, (attack, _) in ATTACKS.items()}, "replay": replayed(earlier[0].content["reply"])}
    process, sizes, sent = psutil.Process(), [0], Counter[str]()

    def hostile(me: Hostile, name: str, attack: Attack) -> Answer:
        def answer(message: Message) -> Message | Raw:
            if not sent[name] % 50:
                sizes.append(process.memory_info().rss)
            sent[name] += 1
            return attack(me, message)

        return answer

    other = Ed25519PrivateKey.generate()
    for number in range(count):  # a key each: objects with the same name would be one object to Flower
        me = Hostile(Ed25519PrivateKey.generate(), other, dice)
        answers[5000 + number] = hostile(me, *dice.choice(list(kinds.items())))
        roster[5000 + number] = public_bytes(me.key).hex()
    this, before = Round(fleet, "now"), process.memory_info().rss
    rejected = this.hold(answers, roster)
    tally = this.tally
    return Flooded(rejected, tally.accepted, tally.missing, this.into.count, sent.total(), max(sizes) - before)
