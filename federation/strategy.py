"""One round over Flower's Grid, streaming: each reply is checked and added the moment it comes.

Not one of Flower's strategies: those hold all replies in memory, trust the sender and the example count a client
names, and let one malformed reply abort the run. Here a reply belongs to the node *we* asked, must be signed by the
key *we* enrolled, and can only be counted, never raise.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from federation.aggregate import Aggregate
from federation.protocol import Order, check_reply, parse_reply, sign_order
from federation.release import Release
from federation.spec import Pace
from federation.tally import Tally
from federation.update import Expected, UpdateRefused, decode

NONCE_BYTES = 16


def gather(grid: Grid, roster: Mapping[int, str], pace: Pace) -> list[int]:
    """Wait for enrolled nodes to be online; return those that are, at the latest after `pace.gather` seconds."""
    end = time.monotonic() + pace.gather
    while True:
        online = sorted(set(grid.get_node_ids()) & set(roster))
        if len(online) >= pace.expected or time.monotonic() >= end:
            return online
        time.sleep(pace.poll)


def collect(
    grid: Grid,
    nodes: Mapping[int, str],
    order: Order,
    secret: bytes,
    release: Release,
    expected: Expected,
    key: Ed25519PrivateKey,
    pace: Pace,
    aggregate: Aggregate,
    *,
    halted: Callable[[], bool] = lambda: False,
) -> Tally:
    """Ask `nodes` (node id -> device key) for one update each and hand what holds up to `aggregate`.

    Args:
        order: the round's order; nonce and device are filled in per node.
        secret: the round's own; with the same one, a repeated round puts the same order to each device.
        release: what the devices start from.
        expected: what every update must say about itself.
        key: the fleet's release key, signs every order.
        halted: asked between looks; True ends the round.

    Returns: the counts, when all answered, the deadline has passed or the round was halted.
    """
    begun, tally = time.monotonic(), Tally(asked=len(nodes))
    orders = {node: replace(order, nonce=nonce(secret, device), device=device) for node, device in nodes.items()}
    pending = _send(grid, orders, release, key, pace)
    for message, asked in _replies(grid, pending, begun + pace.deadline, pace.poll, halted):
        try:
            tally.bytes_in += _admit(message, asked, expected, aggregate, tally)
        except UpdateRefused as refusal:
            tally.rejected[refusal.reason] += 1
    tally.seconds = time.monotonic() - begun
    return tally


def nonce(secret: bytes, device: str) -> str:
    """Return the nonce of the device with this key in the round with this secret: 32 hex digits."""
    return hmac.digest(secret, device.encode(), hashlib.sha256)[:NONCE_BYTES].hex()


def _send(
    grid: Grid, orders: Mapping[int, Order], release: Release, key: Ed25519PrivateKey, pace: Pace
) -> dict[str, Order]:
    """Push all orders; return message id -> order of those that Flower took."""
    shared = ConfigRecord({"envelope": release.envelope, "adapter": release.adapter})
    messages = []
    for node, order in orders.items():
        signed = sign_order(order, key)
        content = RecordDict(
            {"order": ConfigRecord({"body": signed.body, "signature": signed.signature}), "release": shared}
        )
        messages.append(Message(content, node, "train", ttl=pace.deadline + 60.0, group_id=str(order.round)))
    taken = zip(grid.push_messages(messages), orders.values(), strict=False)
    return {message_id: order for message_id, order in taken if message_id}


def _replies(
    grid: Grid, pending: dict[str, Order], end: float, poll: float, halted: Callable[[], bool]
) -> Iterator[tuple[Message | None, Order]]:
    """Yield replies as they come, attributed by our own map of message ids; None for one that cannot be read.

    One id per request: a reply that Flower itself fails to unpack then takes no other with it.
    """
    while pending and time.monotonic() < end and not halted():
        for message_id in list(pending):
            try:
                messages = list(grid.pull_messages([message_id]))
            except Exception:  # whatever a hostile reply provokes in Flower's unpacking stays with that reply
                yield None, pending.pop(message_id)
                continue
            if messages:
                yield messages[0], pending.pop(message_id)
        if pending:
            time.sleep(poll)


def _admit(message: Message | None, order: Order, expected: Expected, aggregate: Aggregate, tally: Tally) -> int:
    """Check one reply and add it; return the size of its payload.

    Raises:
        UpdateRefused: with the reason, whatever is wrong.
    """
    if message is None:
        raise UpdateRefused("unreadable")
    if message.has_error():
        raise UpdateRefused("error")
    content = message.content
    if set(content) != {"reply"} or not isinstance(content["reply"], ConfigRecord):
        raise UpdateRefused("format")
    reply = parse_reply(dict(content["reply"]), expected.size)
    check_reply(reply, order)
    if reply.decline:
        tally.declined[reply.decline] += 1
        return 0
    aggregate.add(decode(reply.payload, expected))
    tally.accepted += 1
    return len(reply.payload)
