"""A device's part: consent, limits and budget are its own; the ledger is written before a byte leaves."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from federation.client_app import respond
from federation.device import LOCK, Device
from federation.protocol import Order, Reply, SignedOrder, sign_order
from federation.release import Release, verify
from federation.server import Operator
from federation.spec import YEAR, Limits
from store.errors import IntegrityError, ReleaseRejected, UsageError
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Consent, Egress, Spend, digest
from store.store import Store
from tests.federation.desk import BASE, Fleet, Owner, add_correction, make_delta, make_fleet, make_spec


def ask(fleet: Fleet, owner: Owner, *, release: Release | None = None, **changes: object) -> Reply:
    """Send `owner` a properly signed order, with changes, and return its answer."""
    operator = Operator.open(fleet.folder, fleet.plan, None)
    release = release or operator._start()
    device = owner.device.key.public_key().public_bytes_raw().hex()
    order = replace(operator._order("run", release), **{"nonce": "a" * 32, "device": device, **changes})
    return owner.device.answer(sign_order(order, fleet.key), release.envelope, release.adapter)


def ledgers(owner: Owner) -> tuple[list[Spend], list[Egress]]:
    """What the store says was spent and sent."""
    return owner.device.store.all(Spend), owner.device.store.all(Egress)


def test_what_leaves_is_in_both_ledgers(fleet: Fleet) -> None:
    """Spend and egress name the very bytes, their size, the consent and the price."""
    owner = fleet.owners[0]
    reply = ask(fleet, owner)
    (spend,), (egress,) = ledgers(owner)
    assert (spend.payload, egress.payload, egress.size) == (digest(reply.payload),) * 2 + (len(reply.payload),)
    assert (spend.unit, spend.delta, egress.destination) == ("correction", 1e-6, owner.device.membership.fleet)
    assert egress.consent == owner.device.store.consent("share", egress.destination).id
    assert 0 < spend.epsilon == spend.total == egress.epsilon < 8


def test_the_ledger_is_committed_before_the_bytes_are_handed_over(fleet: Fleet) -> None:
    """A store that fails to commit lets nothing out."""
    owner = fleet.owners[0]

    class Full(Exception):
        pass

    class FullDisk(type(owner.device.store)):
        def add_all(self, _records: object) -> list[str]:
            raise Full

    owner.device.store.__class__ = FullDisk
    with pytest.raises(Full):
        ask(fleet, owner)


def withdraw(owner: Owner) -> None:
    """The owner takes the consent back."""
    fleet = owner.device.membership.fleet
    owner.device.store.add(Consent(purpose="share", granted=False, destination=fleet, time=time.time()))


def test_without_consent_nothing_is_sent_and_nothing_spent(fleet: Fleet) -> None:
    """Withdrawn consent is a word without payload."""
    owner = fleet.owners[0]
    withdraw(owner)
    reply = ask(fleet, owner)
    assert (reply.decline, reply.payload) == ("consent", b"")
    assert ledgers(owner) == ([], [])
    assert owner.taught == []


def test_consent_to_another_fleet_is_no_consent(tmp_path: Path) -> None:
    """Consent names its destination."""
    one, other = make_fleet(tmp_path / "one", 1), make_fleet(tmp_path / "other", 1)
    store = one.owners[0].device.store
    withdraw(one.owners[0])
    store.add(
        Consent(purpose="share", granted=True, destination=other.owners[0].device.membership.fleet, time=time.time())
    )
    assert ask(one, one.owners[0]).decline == "consent"


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 0.49},
        {"clipping_norm": 11.0},
        {"sampling_rate": 1.1},
        {"steps": 1001},
        {"rank": 65},
        {"max_tokens": 5000},
        {"rank": 2},
        {"alpha": 4.0},
        {"seed_a": 8},
    ],
    ids=str,
)
def test_a_spec_outside_the_devices_limits_or_off_the_release_is_declined(
    fleet: Fleet, changes: dict[str, object]
) -> None:
    """The device's constants win, whoever signed."""
    owner = fleet.owners[0]
    assert ask(fleet, owner, spec=make_spec(**changes)).decline == "spec"
    assert ledgers(owner) == ([], [])


def test_the_same_order_twice_gets_the_same_bytes_and_is_spent_once(fleet: Fleet) -> None:
    """A server that died asks again: what was paid for is sent again, noted again, and costs nothing more."""
    owner = fleet.owners[0]
    first = ask(fleet, owner)
    again = ask(fleet, owner, deadline=time.time() + 9)
    assert again.payload == first.payload
    assert len(owner.taught) == 1
    spends, egresses = ledgers(owner)
    assert [one.epsilon for one in egresses] == [spends[0].epsilon, 0.0]
    assert len(spends) == 1


def test_an_answer_older_than_the_last_is_not_kept(fleet: Fleet) -> None:
    """Of two rounds only the newer one's bytes stay; a replay of the older order gets a word."""
    owner = fleet.owners[0]
    for nonce in ("a" * 32, "b" * 32):
        assert ask(fleet, owner, nonce=nonce).payload
    assert ask(fleet, owner, nonce="a" * 32).decline == "spent"
    assert len(ledgers(owner)[0]) == 2


def test_a_late_order_is_declined(fleet: Fleet) -> None:
    """After its deadline an order is worth nothing."""
    assert ask(fleet, fleet.owners[0], deadline=time.time() - 1).decline == "late"


def test_the_cap_stops_the_device_whatever_the_server_asks(tmp_path: Path) -> None:
    """Rounds are answered until the next would pass the year's cap, then declined; the total never passes it."""
    fleet = make_fleet(tmp_path, 1, limits=Limits(epsilon_cap=4.0, uses_per_correction=100))
    owner = fleet.owners[0]
    answers = [ask(fleet, owner, nonce=f"{number:032x}") for number in range(12)]
    spends, _ = ledgers(owner)
    words = [answer.decline for answer in answers]
    assert 1 < len(spends) < 12
    assert words == [""] * len(spends) + ["budget"] * (12 - len(spends))
    assert spends[-1].total <= 4.0 < spends[-1].total + spends[-1].epsilon
    assert [spend.total for spend in spends] == sorted(spend.total for spend in spends)


def test_spends_of_last_year_free_the_cap_but_stay_in_the_total(tmp_path: Path) -> None:
    """The cap is per year, the total is for life."""
    fleet = make_fleet(tmp_path, 1, limits=Limits(epsilon_cap=4.0))
    owner = fleet.owners[0]
    ask(fleet, owner)
    (first,) = owner.device.store.all(Spend)
    old = [replace(first, run=f"old {n}", time=time.time() - YEAR - 10) for n in range(20)]
    owner.device.store.add_all(old)
    assert ask(fleet, owner, nonce="b" * 32).payload
    assert ledgers(owner)[0][-1].total > 4.0


def test_a_correction_teaches_at_most_four_rounds(tmp_path: Path) -> None:
    """After its fourth use a correction is left out; the device still answers, with noise alone."""
    fleet = make_fleet(tmp_path, 1, limits=Limits(epsilon_cap=1000.0))
    owner = fleet.owners[0]
    for number in range(3):
        ask(fleet, owner, nonce=f"{number:032x}")
    add_correction(owner.device.store, "a later question")
    for number in range(3, 8):
        assert ask(fleet, owner, nonce=f"{number:032x}").payload
    assert [len(examples) for examples in owner.taught] == [1, 1, 1, 2, 1, 1, 1, 0]


def test_what_is_not_to_be_shared_never_teaches_a_shared_update(fleet: Fleet) -> None:
    """`share=False` keeps a correction at home."""
    owner = fleet.owners[0]
    add_correction(owner.device.store, "private", share=False)
    ask(fleet, owner)
    assert [example.messages[0].content for example in owner.taught[0]] == ["question 0"]


def test_a_device_without_corrections_sends_the_same_number_of_bytes(tmp_path: Path) -> None:
    """Taking part says nothing about having learned anything."""
    fleet = make_fleet(tmp_path, 2)
    empty, full = fleet.owners
    for correction in empty.device.store.examples():
        assert correction
    device = replace(empty.device, store=type(empty.device.store)())
    device.store.add(Consent(purpose="share", granted=True, destination=device.membership.fleet, time=time.time()))
    assert len(ask(fleet, replace(empty, device=device)).payload) == len(ask(fleet, full).payload)
    assert empty.taught[-1] == []


def test_a_busy_device_says_so(fleet: Fleet) -> None:
    """Two rounds at once on one store: the second is declined."""
    owner = fleet.owners[0]
    with owner.device.store.lock(LOCK):
        assert ask(fleet, owner).decline == "busy"


def test_an_order_for_another_device_or_by_another_key_is_not_answered_at_all(tmp_path: Path) -> None:
    """Neither gets even a word."""
    fleet, foreign = make_fleet(tmp_path / "a", 2), make_fleet(tmp_path / "b", 1)
    with pytest.raises(ReleaseRejected):
        ask(fleet, fleet.owners[0], device=fleet.owners[1].device.key.public_key().public_bytes_raw().hex())
    release = Operator.open(fleet.folder, fleet.plan, None)._start()
    order = replace(Operator.open(fleet.folder, fleet.plan, None)._order("run", release), nonce="c" * 32)
    with pytest.raises(ReleaseRejected):
        fleet.owners[0].device.answer(sign_order(order, foreign.key), release.envelope, release.adapter)
    for body in (b"", b"{}", b"[1]", b"\xff", b"x" * 20_000):
        with pytest.raises(ReleaseRejected):
            fleet.owners[0].device.answer(SignedOrder(body, bytes(64)), release.envelope, release.adapter)


def test_an_order_on_a_release_that_does_not_verify_is_declined(fleet: Fleet) -> None:
    """Changed adapter bytes, an order for another release, an order out of turn."""
    owner = fleet.owners[0]
    release = Operator.open(fleet.folder, fleet.plan, None)._start()
    spoiled = Release(release.manifest, release.signature, release.adapter[:-1] + b"\x01")
    assert ask(fleet, owner, release=spoiled).decline == "release"
    assert ask(fleet, owner, **{"round": 5}).decline == "release"
    other = replace(owner.device, membership=replace(owner.device.membership, base=digest(b"another")))
    assert ask(fleet, replace(owner, device=other)).decline == "base"
    assert ledgers(owner) == ([], [])


def test_a_ledger_that_was_rolled_back_stops_the_device(fleet: Fleet, tmp_path: Path) -> None:
    """An older copy of the store, put back, would hide a spend: nothing more is sent or spent, and no reason leaves."""
    home, owner = Home.at(tmp_path / "home").create(), fleet.owners[0]
    with Store.create(home, KeyFile()) as store:
        add_correction(store, "question")
        store.add(Consent(purpose="share", granted=True, destination=owner.device.membership.fleet, time=time.time()))
    database = home.generation(1) / "store.db"
    before = database.read_bytes()
    with Store.open(home, unlock(home)) as store:
        assert ask(fleet, replace(owner, device=replace(owner.device, store=store))).payload
    database.write_bytes(before)
    with Store.open(home, unlock(home)) as store:
        device = replace(owner.device, store=store)
        with pytest.raises(IntegrityError):
            ask(fleet, replace(owner, device=device), nonce="b" * 32)
        assert (store.all(Spend), store.all(Egress)) == ([], [])


def test_a_failing_training_says_nothing_and_spends_nothing(fleet: Fleet) -> None:
    """No traceback, no text in the reply; the ledger stays empty."""

    def explode(*_arguments: object) -> object:
        raise IntegrityError("a sentence of the owner")

    owner = fleet.owners[0]
    device = replace(owner.device, train=explode)
    with pytest.raises(IntegrityError):
        ask(fleet, replace(owner, device=device))
    assert ledgers(owner) == ([], [])


def wrong_deltas() -> dict[str, Callable[..., object]]:
    """Trainers that break their contract."""
    return {
        "not finite": lambda _examples, spec, _start: make_delta(spec, lambda shape: np.full(shape, np.nan)),
        "less noise": lambda _examples, _spec, _start: make_delta(make_spec(noise_multiplier=0.6), np.zeros),
    }


@pytest.mark.parametrize("name", wrong_deltas())
def test_a_delta_that_breaks_the_contract_never_leaves(fleet: Fleet, name: str) -> None:
    """Neither NaN nor a delta with other noise than the order asks for is sent or spent."""
    owner = fleet.owners[0]
    device = replace(owner.device, train=wrong_deltas()[name])
    with pytest.raises(UsageError):
        ask(fleet, replace(owner, device=device))
    assert ledgers(owner) == ([], [])


def test_the_newest_release_seen_is_remembered_and_older_ones_are_refused(fleet: Fleet) -> None:
    """A server that goes back in time is refused after a restart of the device too."""
    owner = fleet.owners[0]
    operator = Operator.open(fleet.folder, fleet.plan, None)
    first = operator._start()
    ask(fleet, owner)
    manifest = replace(first.manifest, round=1, parent=first.manifest.id)
    second = operator._publish(manifest, first.adapter)
    assert ask(fleet, owner, release=second, nonce="d" * 32).payload
    assert owner.device.membership.newest() == manifest
    assert ask(fleet, owner, release=first, nonce="e" * 32, round=1).decline == "release"
    assert verify(second.envelope, second.adapter, release_key=owner.device.membership.release_key, base=BASE)


@pytest.mark.parametrize("field", ["order", "release"])
def test_a_message_without_its_parts_gets_a_bare_refusal(fleet: Fleet, field: str) -> None:
    """Whatever Flower delivers, the reply is one fixed word."""
    from flwr.app import ConfigRecord, RecordDict

    device: Device = fleet.owners[0].device
    for record in ({}, {field: ConfigRecord({})}, {field: ConfigRecord({"body": "text", "envelope": 3})}):
        message = Message(RecordDict(record), 1000, "train")
        message.metadata.__dict__.update({"_message_id": "m", "_src_node_id": 1})
        reply = respond(device, message)
        assert (reply.has_error(), reply.error.reason) == (True, "refused")


def test_an_order_carries_no_private_field() -> None:
    """What a device is asked for is public in every field."""
    assert {"fleet", "run", "round", "nonce", "device", "release", "deadline", "spec"} == set(
        Order.__dataclass_fields__
    )
