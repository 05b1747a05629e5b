"""Everything a node with an enrolled key may answer that is not an update, and the words it may be counted under."""

import functools
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body, get_object_id

from federation.protocol import Order, reply_fields, sign_reply
from federation.simulation import Raw, on_the_wire
from federation.spec import RoundSpec
from federation.update import HEADER, Expected, privatise
from tests.federation.desk import error_reply, make_delta, make_expected, record_reply

Attack = Callable[["Hostile", Message], Message | Raw]
GIGABYTE = 1 << 30


def bomb() -> bytes:
    """A gigabyte of zeros, deflated into a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return chunk * (GIGABYTE >> 20) + packer.flush()


BOMB = bomb()


def read_order(message: Message) -> Order:
    """The order inside a message, its signature unchecked."""
    value = json.loads(message.content["order"]["body"])
    return Order(**{**value, "spec": RoundSpec.parse(value["spec"])})


def expected_by(message: Message) -> Expected:
    """What the order asks for."""
    order = read_order(message)
    return make_expected(order.spec, release=order.release, round=order.round)


def payload(message: Message) -> bytes:
    """A well-formed update for the order in `message`."""
    return _payload(expected_by(message))


@functools.cache
def _payload(expected: Expected) -> bytes:
    return privatise(make_delta(expected.spec, lambda shape: np.full(shape, 0.01)), expected).encode()


def signed(message: Message, data: bytes, key: Ed25519PrivateKey, **order_changes: object) -> Message:
    """A reply with `data`, signed by `key` for a possibly changed order."""
    reply = sign_reply(replace(read_order(message), **order_changes), data, key)
    return record_reply(message, reply=ConfigRecord(dict(reply_fields(reply))))


@dataclass
class Hostile:
    """One hostile device: its enrolled key, somebody else's key, and dice."""

    key: Ed25519PrivateKey
    other: Ed25519PrivateKey
    dice: random.Random

    def sign(self, message: Message, data: bytes, **changes: object) -> Message:
        """Correctly signed bytes."""
        return signed(message, data, self.key, **changes)

    def fields(self, message: Message, **changes: object) -> Message:
        """An honest reply with some fields replaced."""
        reply = reply_fields(sign_reply(read_order(message), payload(message), self.key))
        return record_reply(message, reply=ConfigRecord({**reply, **changes}))


def arrays(me: Hostile, message: Message) -> Message:
    """Tensors of any kind in place of bytes: NaN, infinite, huge, empty, of every dtype."""
    kinds = ("f2", "f4", "f8", "c8", "i1", "i8", "u2", "?", "U4")
    array = np.zeros(me.dice.choice([(), (0,), (3,), (2, 2, 2)]), dtype=me.dice.choice(kinds))
    if array.dtype.kind in "fc" and array.size:
        array.fill(me.dice.choice([np.nan, np.inf, -np.inf, 1e4]))
    return record_reply(message, reply=ArrayRecord({"w": Array(array)}))


def claims_a_gigabyte(_me: Hostile, message: Message) -> Message:
    """An array whose header claims a gigabyte and whose data are a few bytes."""
    array = Array(dtype="float32", shape=(1 << 28,), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00")
    return record_reply(message, reply=ArrayRecord({"w": array}))


def not_numbers(me: Hostile, message: Message) -> Message:
    """Floats that are NaN or infinite under a right header; as levels they are anything."""
    expected = expected_by(message)
    floats = struct.pack("<f", me.dice.choice([float("nan"), float("inf"), float("-inf")]))
    body = (floats * expected.count)[: expected.size - HEADER.size]
    return me.sign(message, expected.header + body)


def header(me: Hostile, message: Message) -> Message:
    """One byte of the header is another."""
    data, place = bytearray(payload(message)), me.dice.randrange(HEADER.size)
    data[place] ^= 1 << me.dice.randrange(8)
    return me.sign(message, bytes(data))


def another_time(me: Hostile, message: Message) -> Message:
    """An update made for another round, base, release or mechanism, signed for this one."""
    expected = expected_by(message)
    elsewhere = me.dice.choice(
        [
            {"round": expected.round + me.dice.randrange(1, 9)},
            {"base": "sha256:" + "1" * 64},
            {"release": "sha256:" + "2" * 64},
            {"spec": replace(expected.spec, learning_rate=9.0)},
        ]
    )
    other = replace(expected, **elsewhere)
    return me.sign(message, privatise(make_delta(other.spec, np.zeros), other).encode())


def cut_up(me: Hostile, message: Message) -> Raw:
    """A good reply, one of its objects damaged on the wire."""
    raw = on_the_wire(me.sign(message, payload(message)))
    victim = me.dice.choice(list(raw.contents))
    data = bytearray(raw.contents[victim])
    harm = me.dice.randrange(5)
    if harm == 0:
        data = data[: me.dice.randrange(len(data))]
    elif harm == 1:
        data = bytearray(me.dice.randbytes(len(data)))
    elif harm == 2:
        data = bytearray(add_header_to_object_body(b"\xff" * 50, ConfigRecord()))
    elif harm == 3:
        data[me.dice.randrange(len(data))] ^= 1 << me.dice.randrange(8)
    else:
        data[-1] ^= 1
    return replace(raw, contents={**raw.contents, victim: bytes(data)})


def said_twice(me: Hostile, message: Message) -> Raw:
    """A good reply whose record holds something more that the parser skips, every object under its right name."""
    raw = on_the_wire(me.sign(message, payload(message)))
    (record, data), (names, listing), (_top, head) = raw.contents.items()
    body = data.partition(HEAD_BODY_DIVIDER)[2]
    more = me.dice.choice([b"\x7a\x03abc", body[: 2 + body[1]]])  # an unknown field; the first field once more
    data = add_header_to_object_body(me.dice.choice([body + more, more + body]), ConfigRecord())
    listing = listing.replace(record.encode(), get_object_id(data).encode())
    head = head.replace(names.encode(), get_object_id(listing).encode())
    contents = {get_object_id(each): each for each in (data, listing, head)}
    tree = None
    for name in contents:
        tree = ObjectTree(object_id=name, children=[tree] if tree else [])
    answer = ProtoMessage()
    answer.CopyFrom(raw.message)
    answer.metadata.message_id = get_object_id(head)
    return Raw(tree, contents, answer)


def swarm(_me: Hostile, message: Message) -> Raw:
    """A reply that claims to be made of a thousand objects."""
    raw = on_the_wire(record_reply(message, reply=ConfigRecord({"a": 1})))
    tree = ObjectTree(object_id=raw.tree.object_id)
    tree.children.extend(ObjectTree(object_id=f"{number:064x}") for number in range(1000))
    return replace(raw, tree=tree)


def itself(me: Hostile, message: Message) -> Raw:
    """A reply that is a part of itself."""
    raw = on_the_wire(me.sign(message, payload(message)))
    tree = ObjectTree(object_id=raw.tree.object_id)
    tree.children.append(ObjectTree(object_id=raw.tree.object_id))
    return replace(raw, tree=tree)


def many_items(me: Hostile, message: Message) -> Message:
    """A megabyte of tiny fields that would unfold into many times as much."""
    return record_reply(message, reply=ConfigRecord({f"{number}": [1] * 50 for number in range(1200)}))


FORMAT, SIZE, SIGNATURE, UNREAD = {"format"}, {"size"}, {"signature"}, {"unreadable"}
HEADERS = {"magic", "version", "bits", "header", "round", "count", "base", "release", "spec"}

ATTACKS: Mapping[str, tuple[Attack, set[str]]] = {
    "no records": (lambda _, m: record_reply(m), FORMAT),
    "another record": (lambda _, m: record_reply(m, other=ConfigRecord({"a": 1})), FORMAT),
    "numbers for a record": (lambda _, m: record_reply(m, reply=MetricRecord({"a": 1.0})), FORMAT),
    "two records": (lambda _, m: record_reply(m, reply=ConfigRecord({}), other=ConfigRecord({"a": 1})), UNREAD),
    "tensors": (arrays, UNREAD),
    "a tensor that claims a gigabyte": (claims_a_gigabyte, UNREAD),
    "an extra field": (lambda me, m: me.fields(m, num_examples=10**12), FORMAT),
    "a payload of text": (lambda me, m: me.fields(m, payload="hello"), FORMAT),
    "a payload of numbers": (lambda me, m: me.fields(m, payload=[1, 2, 3]), FORMAT),
    "a short payload": (lambda me, m: me.fields(m, payload=me.dice.randbytes(me.dice.randrange(1, 500))), SIZE),
    "a payload a little too long": (lambda me, m: me.sign(m, payload(m) + b"x"), SIZE),
    "a megabyte": (lambda me, m: me.fields(m, payload=bytes(1 << 20)), UNREAD),
    "a gigabyte in a megabyte": (lambda me, m: me.fields(m, payload=BOMB), UNREAD),
    "a bomb of the right size": (lambda me, m: me.sign(m, BOMB[: expected_by(m).size]), {"magic"}),
    "a megabyte of small fields": (many_items, UNREAD),
    "an empty payload": (lambda me, m: me.fields(m, payload=b""), SIZE),
    "both word and payload": (lambda me, m: me.fields(m, decline="consent"), FORMAT),
    "an unknown word": (lambda me, m: me.fields(m, decline="because" * 100, payload=b""), FORMAT),
    "a forged word": (lambda me, m: me.fields(m, decline="budget", payload=b""), SIGNATURE),
    "no signature": (lambda me, m: me.fields(m, signature=b""), SIGNATURE),
    "a random signature": (lambda me, m: me.fields(m, signature=me.dice.randbytes(64)), SIGNATURE),
    "another key": (lambda me, m: signed(m, payload(m), Ed25519PrivateKey.generate()), SIGNATURE),
    "another device's key": (lambda me, m: signed(m, payload(m), me.other), SIGNATURE),
    "another round": (lambda me, m: me.sign(m, payload(m), round=7), SIGNATURE),
    "another run": (lambda me, m: me.sign(m, payload(m), run="old"), SIGNATURE),
    "another fleet": (lambda me, m: me.sign(m, payload(m), fleet="sha256:" + "0" * 64), SIGNATURE),
    "another nonce": (lambda me, m: me.sign(m, payload(m), nonce=f"{me.dice.getrandbits(128):032x}"), SIGNATURE),
    "an update for elsewhere": (another_time, {"round", "base", "release", "spec"}),
    "a header with one bit turned": (header, HEADERS),
    "zeros for a header": (lambda me, m: me.sign(m, bytes(expected_by(m).size)), {"magic"}),
    "not numbers": (not_numbers, {"range", "norm"}),
    "the lowest level": (lambda me, m: me.sign(m, payload(m)[:-1] + b"\x80"), {"range"}),
    "too large a norm": (
        lambda me, m: me.sign(m, payload(m)[: HEADER.size] + b"\x7f" * expected_by(m).count),
        {"norm"},
    ),
    "damaged objects": (cut_up, {"unreadable", "format", "signature", "size"}),
    "more than is signed": (said_twice, FORMAT),
    "a swarm of objects": (swarm, UNREAD),
    "a part of itself": (itself, {"unreadable", "signature"}),
    "Flower's error": (lambda _, m: error_reply(m), {"error"}),
}


def replayed(earlier: Mapping[str, object]) -> Attack:
    """Fields of a reply that was good in an earlier round, sent again."""
    return lambda _me, message: Message(RecordDict({"reply": ConfigRecord(dict(earlier))}), reply_to=message)  # type: ignore[arg-type]
