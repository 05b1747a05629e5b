"""The server's rounds over an in-process Grid: honest devices are averaged, everybody else is counted."""

import random
import secrets
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict

from federation import adapter, strategy
from federation.aggregate import aggregate
from federation.client_app import respond
from federation.overview import overview
from federation.pki import public_bytes
from federation.protocol import Reply, SignedOrder, open_order, reply_fields
from federation.release import Release
from federation.server import HALTED, SHARES, Operator
from federation.server_app import collector
from federation.simulation import LoopGrid
from federation.state import Node
from federation.tally import Tally
from store.records import Spend
from tests.federation.desk import (
    GEOMETRY,
    Fleet,
    Owner,
    error_reply,
    make_expected,
    make_fleet,
)
from tests.federation.hostile import ATTACKS, Hostile, payload, read_order, signed

Answer = Callable[[Message], Message | None]


def honest(owner: Owner) -> Answer:
    """The installed client."""
    return lambda message: respond(owner.device, message)


def run(fleet: Fleet, answers: dict[int, Answer] | None = None, **plan: object) -> tuple[Release, dict[str, Any]]:
    """Run the plan with some nodes replaced; return (newest release, last report)."""
    chosen = {owner.node_id: honest(owner) for owner in fleet.owners} | (answers or {})
    fleet.plan = replace(fleet.plan, **plan)
    grid = LoopGrid(chosen)
    operator = Operator.open(fleet.folder, fleet.plan, fleet.state)
    release = operator.run(secrets.token_hex(4), collector(grid, fleet.state, fleet.plan))
    return release, fleet.folder.read_reports()[-1]


def mean_b(release: Release) -> float:
    """Mean of all coordinates of B."""
    weights = adapter.open_release(release, GEOMETRY, max_norm=1e9)
    return float(np.concatenate([b.ravel() for b in weights.b.values()]).mean())


def test_the_release_is_the_mean_of_all_devices(fleet: Fleet) -> None:
    """Changes of 0.01, 0.02 and 0.03 give 0.02, whatever the order."""
    release, report = run(fleet)
    assert mean_b(release) == pytest.approx(0.02, abs=0.002)
    assert (report["accepted"], report["verdict"], release.manifest.cohort) == (3, "released", 3)
    assert report["bytes_in"] == 3 * make_expected().size


class OtherGrid:
    """Flower's public Grid and nothing else, as its simulation runtime offers it."""

    def __init__(self, answers: dict[int, Answer]) -> None:
        inside = LoopGrid(answers)
        self.get_node_ids, self.push_messages = inside.get_node_ids, inside.push_messages
        self.pull_messages = inside.pull_messages


def test_any_other_grid_of_flowers_serves_a_round_too(fleet: Fleet) -> None:
    """Replies that Flower has unpacked itself are judged alike; one that breaks its unpacking stays alone."""
    chosen: dict[int, Any] = {owner.node_id: honest(owner) for owner in fleet.owners}
    for number, name in enumerate(("another key", "not numbers", "a part of itself")):
        attack = ATTACKS[name][0]
        me = Hostile(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), random.Random(number))
        fleet.state.enroll(Node(node_id=7 + number, name=f"hostile {number}", device=public_bytes(me.key).hex()))
        chosen[7 + number] = lambda message, me=me, attack=attack: attack(me, message)
    operator = Operator.open(fleet.folder, fleet.plan, fleet.state)
    release = operator.run("run", collector(OtherGrid(chosen), fleet.state, fleet.plan))
    report = fleet.folder.read_reports()[-1]
    assert (report["accepted"], report["missing"]) == (3, 0)
    assert {"signature", "unreadable"} < set(report["rejected"])
    assert sum(report["rejected"].values()) == 3
    assert mean_b(release) > 0


def test_rounds_build_on_each_other(fleet: Fleet) -> None:
    """Three rounds of mean 0.02 give 0.06, each release naming its parent and its total cost."""
    release, _ = run(fleet, rounds=3)
    assert mean_b(release) == pytest.approx(0.06, abs=0.005)
    assert release.manifest.round == 3
    assert release.manifest.epsilon < release.manifest.epsilon_total < 3 * release.manifest.epsilon
    assert len(list(fleet.folder.releases.glob("*.json"))) == 4


def test_a_second_run_continues_from_the_newest_release(fleet: Fleet) -> None:
    """The server resumes from its folder."""
    run(fleet)
    release, _ = run(fleet)
    assert release.manifest.round == 2
    assert mean_b(release) == pytest.approx(0.04, abs=0.004)


def test_too_few_updates_release_nothing_but_are_on_file(fleet: Fleet) -> None:
    """Below the quorum no release is made; the round counts as spent."""
    release, report = run(fleet, {1000: error_reply, 1001: error_reply})
    assert release.manifest.round == 0
    assert (report["verdict"], report["accepted"], report["rejected"]) == ("no_quorum", 1, {"error": 2})
    fleet.plan.write(fleet.folder.plan)
    (spend,) = fleet.owners[2].device.store.all(Spend)
    assert spend.total > release.manifest.epsilon_total
    assert overview(fleet.folder, fleet.state).epsilon_total == pytest.approx(spend.total)


def test_a_round_asks_no_more_devices_than_it_may(fleet: Fleet) -> None:
    """Of three that are online, two are drawn, and every one of the three at some time."""
    pace, grid = replace(fleet.plan.pace, most=2), LoopGrid(dict.fromkeys(fleet.roster, error_reply))
    drawn = [strategy.gather(grid, fleet.roster, pace) for _ in range(60)]
    assert {len(nodes) for nodes in drawn} == {2}
    assert {node for nodes in drawn for node in nodes} == set(fleet.roster)


def test_devices_that_never_answer_do_not_block_the_round(fleet: Fleet) -> None:
    """The deadline ends it; they are counted as missing."""
    pace = replace(fleet.plan.pace, deadline=3.0)
    begun = time.monotonic()
    release, report = run(fleet, {1000: lambda _: None}, pace=pace)
    assert time.monotonic() - begun < 60
    assert (release.manifest.cohort, report["missing"]) == (2, 1)


def test_a_server_that_died_in_a_round_repeats_it_with_the_same_orders(fleet: Fleet) -> None:
    """Nonces are the same again, so no device counts it twice; the server's total counts it once."""
    nonces: list[set[str]] = []

    def dies(*arguments: object) -> Tally:
        collector(LoopGrid(answers()), fleet.state, fleet.plan)(*arguments)
        raise MemoryError

    def answers() -> dict[int, Answer]:
        nonces.append(set())

        def noting(owner: Owner) -> Answer:
            return lambda message: nonces[-1].add(read_order(message).nonce) or respond(owner.device, message)

        return {owner.node_id: noting(owner) for owner in fleet.owners}

    operator = Operator.open(fleet.folder, fleet.plan, fleet.state)
    with pytest.raises(MemoryError):
        operator.run("first", dies)
    assert [entry.verdict for entry in fleet.state.rounds()] == ["asked"]
    operator.run("second", collector(LoopGrid(answers()), fleet.state, fleet.plan))
    assert nonces[0] == nonces[1]
    assert len(nonces[0]) == 3
    assert [entry.run for entry in fleet.state.rounds()] == ["first/0"]
    noted = [event.event for event in fleet.state.events()]
    assert [word for word in noted if word != "released"][:1] == ["round repeated"]


def test_a_round_of_another_mechanism_is_not_repeated(fleet: Fleet) -> None:
    """When the operator changed the plan meanwhile, the old round is closed as abandoned and counts as spent."""

    def dies(*_arguments: object) -> Tally:
        raise MemoryError

    with pytest.raises(MemoryError):
        Operator.open(fleet.folder, fleet.plan, fleet.state).run("first", dies)
    release, _ = run(fleet, spec=replace(fleet.plan.spec, steps=11))
    assert [entry.verdict for entry in fleet.state.rounds()] == ["abandoned", "released"]
    assert release.manifest.epsilon_total > release.manifest.epsilon


def test_a_halted_fleet_stops_in_the_middle_of_a_round(fleet: Fleet) -> None:
    """The operator's switch ends the round at hand, releases nothing and lets none begin until it is off."""

    def halting(message: Message) -> None:
        fleet.state.put(HALTED, "by hand")

    release, report = run(fleet, {1000: halting}, rounds=3)
    assert (release.manifest.round, report["verdict"], len(fleet.state.rounds())) == (0, "halted", 1)
    release, _ = run(fleet)
    assert (release.manifest.round, len(fleet.state.rounds())) == (0, 1)
    fleet.state.put(HALTED, "")
    release, _ = run(fleet, rounds=1)
    assert release.manifest.round == 1


@pytest.mark.parametrize("rule", ["trimmed", "median", "norm"])
def test_a_round_may_be_held_under_any_rule(tmp_path: Path, rule: str) -> None:
    """Changes of 0.2, 0.3 and 0.4 give 0.3 under the robust rules too, and the report names the rule."""
    release, report = run(make_fleet(tmp_path, values=(0.2, 0.3, 0.4)), rule=rule, trim=0.34)
    assert mean_b(release) == pytest.approx(0.3, abs=0.02)
    assert (report["rule"], report["used"], release.manifest.cohort) == (rule, 3, 3)


def run_with_points(fleet: Fleet, points: list[float], name: str = "skills") -> tuple[Release, dict[str, Any]]:
    """Run the plan with a probe that gives these points in turn; return (newest release, report)."""
    scores = iter(points)
    operator = Operator.open(fleet.folder, fleet.plan, fleet.state, lambda _: {name: next(scores)})
    grid = LoopGrid({owner.node_id: honest(owner) for owner in fleet.owners})
    release = operator.run(secrets.token_hex(4), collector(grid, fleet.state, fleet.plan))
    (report,) = fleet.folder.read_reports()
    return release, report


def test_a_release_that_fails_the_probe_set_is_not_signed(fleet: Fleet) -> None:
    """The operator's probe set has the last word, at every share of the round; the parent stays the newest."""
    release, report = run_with_points(fleet, [90.0] + [80.0] * len(SHARES))
    assert (release.manifest.round, report["verdict"]) == (0, "not_signed_off")
    assert report["probe"] == {"base": 90.0, "after": 80.0}


def test_a_release_loses_no_more_whole_answers_than_a_device_would_let_go(fleet: Fleet) -> None:
    """The probability of whole answers may fall by the one point that a device's gate allows."""
    release, report = run_with_points(fleet, [90.0, 88.9, 89.1], "whole")
    assert (release.manifest.round, report["verdict"]) == (1, "released")
    assert report["probe"] == {"whole_base": 90.0, "whole_after": 89.1}


def test_what_may_be_lost_of_whole_answers_grows_with_the_rounds(fleet: Fleet) -> None:
    """Of three rounds' one point."""
    operator = Operator.open(fleet.folder, replace(fleet.plan, spread=3), fleet.state)
    for number, most in enumerate((0.33, 0.66, 1.0, 1.0), 1):
        assert not operator._lost({"whole": 97.5}, {"whole": 97.5 - most}, number)
        assert operator._lost({"whole": 97.5}, {"whole": 97.49 - most}, number) == "not_signed_off"


def test_a_release_that_makes_planted_answers_likely_is_not_signed(fleet: Fleet) -> None:
    """At no share of the round may the trigger probes gain more than the tolerance; the report says how much."""
    release, report = run_with_points(fleet, [0.5] + [40.0] * len(SHARES), "triggers")
    assert (release.manifest.round, report["verdict"]) == (0, "triggered")
    assert report["probe"] == {"triggers_base": 0.5, "triggers_after": 40.0}


def test_a_round_that_costs_old_skills_is_released_in_part(fleet: Fleet) -> None:
    """The largest share of the mean that loses no old skill is taken."""
    release, report = run_with_points(fleet, [90.0, 80.0, 89.8])
    assert report["verdict"] == "released"
    assert mean_b(release) == pytest.approx(SHARES[1] * 0.02, abs=0.002)


def test_an_unenrolled_or_revoked_node_is_not_asked(fleet: Fleet) -> None:
    """Only keys on the roster get an order."""
    stranger = make_fleet(fleet.folder.root.parent / "elsewhere", 1).owners[0]
    fleet.state.revoke(fleet.roster[1002])
    _, report = run(fleet, {5000: honest(stranger)})
    assert (report["asked"], report["accepted"]) == (2, 2)


def peak_of_a_round(fleet: Fleet, copies: int) -> int:
    """Peak memory in bytes while one round collects `copies` updates."""
    key = fleet.owners[0].device.key
    answers = dict.fromkeys(range(copies), lambda message: signed(message, payload(message), key))
    operator = Operator.open(fleet.folder, fleet.plan, fleet.state)
    release = operator._start()
    entry, expected = operator._open(f"run {copies}", release), operator._expected(release)
    order, into = operator._order(entry.run, release), aggregate(expected)
    roster = dict.fromkeys(answers, public_bytes(key).hex())
    tracemalloc.start()
    tally = strategy.collect(
        LoopGrid(answers), roster, order, entry.secret, release, expected, fleet.key, fleet.plan.pace, into
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert into.count == tally.accepted == copies
    return peak


def test_memory_per_reply_does_not_hold_the_update(fleet: Fleet) -> None:
    """Each reply is added and dropped: 200 more replies cost less than their payloads."""
    small, large = peak_of_a_round(fleet, 5), peak_of_a_round(fleet, 205)
    orders = 200 * 4096  # the messages asked, which Flower keeps here
    assert large - small < orders + 200 * make_expected().size / 2


def test_an_order_without_the_fleets_signature_is_not_answered(fleet: Fleet) -> None:
    """Whoever reaches Flower's open control interface cannot spend a device's budget."""
    device = fleet.owners[0].device
    seen: list[Message] = []
    run(fleet, {1000: lambda message: seen.append(message) or respond(device, message)})
    order, release = seen[0].content["order"], seen[0].content["release"]
    forged = ConfigRecord({"body": order["body"], "signature": secrets.token_bytes(64)})
    reply = respond(device, record_message(seen[0], order=forged, release=release))
    assert reply.has_error()
    assert reply.error.reason == "refused"
    assert open_order(SignedOrder(order["body"], order["signature"]), public_bytes(fleet.key)).round == 1


def record_message(like: Message, **records: object) -> Message:
    """A message to a device with other records."""
    message = Message(RecordDict(records), like.metadata.dst_node_id, "train")
    message.metadata.__dict__["_message_id"] = "again"
    message.metadata.__dict__["_src_node_id"] = 1
    return message


def test_reply_fields_hold_nothing_but_word_payload_and_signature() -> None:
    """No loss, no count, no text travels back."""
    assert set(reply_fields(Reply("", b"x", b"y"))) == {"decline", "payload", "signature"}
