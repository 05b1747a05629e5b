"""What a preview shows is what a round sends: header, schema, length, and every number but its rounding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord

from federation.charter import Charter, read_terms
from federation.membership import Membership
from federation.preview import NO_RELEASE, account, preview
from federation.protocol import Reply, reply_fields
from federation.server import Operator
from federation.update import HEADER, PrivateUpdate, decode
from store.errors import NotEligible, ReleaseRejected
from tests.federation.desk import GEOMETRY, Fleet, Owner, make_expected, make_fleet, make_spec
from tests.federation.test_device import ask


def shown(owner: Owner) -> PrivateUpdate:
    """What a device shows of its next message."""
    device = owner.device
    return preview(device.store, device.membership, GEOMETRY, device.train)[0]


def record(reply: Reply) -> bytes:
    """A reply as the one record that `client_app` hands to Flower."""
    return bytes(ConfigRecord(dict(reply_fields(reply))).deflate())


def agree(fleet: Fleet, place: Membership) -> None:
    """Keep the fleet's terms as joining does."""
    charter = Charter(operator="a test")
    charter.write(fleet.folder.charter)
    fleet.plan.write(fleet.folder.plan)
    place.terms.write_bytes(read_terms(fleet.folder, fleet.key))


def test_header_length_and_schema_are_those_of_the_message_that_is_sent(fleet: Fleet) -> None:
    """In its place, Flower's record differs from the one sent in signature and noise alone, and a server admits it."""
    owner = fleet.owners[1]
    start = Operator.open(fleet.folder, fleet.plan, None)._start()
    owner.device.membership.accept(start.envelope, start.adapter)
    first = shown(owner)
    reply = ask(fleet, owner, release=start)
    sent = reply.payload
    assert len(first.encode()) == len(sent)
    assert first.encode()[: HEADER.size] == sent[: HEADER.size]
    parsed = decode(sent, first.expected)
    assert parsed.levels.dtype == decode(first.encode(), parsed.expected).levels.dtype
    assert np.abs(parsed.levels.astype(int) - first.levels).max() <= 1  # this trainer's noise is the same each time
    body = sent[HEADER.size :]
    blank = record(reply).replace(body, bytes(len(body))).replace(reply.signature, bytes(64))
    masked = record(Reply("", first.expected.header + bytes(len(body)), bytes(64)))
    assert blank == masked


def test_the_next_rounds_preview_starts_from_the_newest_release(fleet: Fleet) -> None:
    """After a round the header names the release that the device saw last."""
    owner = fleet.owners[0]
    ask(fleet, owner)
    newest = owner.device.membership.newest()
    assert newest is not None
    expected = shown(owner).expected
    assert (expected.release, expected.round) == (newest.id, newest.round + 1)


def test_before_the_first_release_it_follows_the_terms_agreed_to(tmp_path: Path) -> None:
    """The fleet's own mechanism, and zeros where the release's hash will be; the account says so."""
    fleet = make_fleet(tmp_path)
    fleet.plan = replace(fleet.plan, spec=make_spec(learning_rate=0.25))
    owner = fleet.owners[0]
    with pytest.raises(NotEligible):
        shown(owner)
    agree(fleet, owner.device.membership)
    first = shown(owner)
    assert first.expected == make_expected(fleet.plan.spec, release=NO_RELEASE)
    assert first.encode()[48:80] == bytes(32)
    assert "zeros" in account(first)[3]
    sent = ask(fleet, owner).payload
    assert first.encode()[:48] + first.encode()[80:112] == sent[:48] + sent[80:112]
    assert len(first.encode()) == len(sent)


def test_terms_that_were_changed_are_not_believed(fleet: Fleet) -> None:
    """They are the fleet's word only while its signature holds."""
    place = fleet.owners[0].device.membership
    agree(fleet, place)
    place.terms.write_bytes(place.terms.read_bytes().replace(b'"steps":10', b'"steps":11'))
    with pytest.raises(ReleaseRejected):
        shown(fleet.owners[0])
