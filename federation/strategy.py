"""One round over Flower's Grid, streaming: each reply is checked and added the moment it comes.

Not one of Flower's strategies: those hold all replies in memory, trust the sender and the example count a client
names, and let one malformed reply abort the run. Here a reply belongs to the node *we* asked, must be signed by the
key *we* enrolled, and can only be counted, never raise.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from federation.aggregate import Aggregate
from federation.intake import BATCH, OVERHEAD, Intake
from federation.protocol import Order, check_reply, parse_reply, sign_order
from federation.release import Release
from federation.spec import Pace
from federation.tally import Tally
from federation.update import Expected, UpdateRefused, decode

NONCE_BYTES = 16
NODE_LOST = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED)
RETRIES = 2  # times an order is sent again to a node that was lost
AWAY = 90.0  # seconds a lost node is waited for; Flower itself takes a minute to notice
SLOWER, SLOWEST = 1.5, 4.0  # factors by which looks at an empty desk get rarer


def gather(grid: Grid, roster: Mapping[int, str], pace: Pace) -> list[int]:
    """Wait for enrolled nodes to be online; return those that are, at the latest after `pace.gather` seconds.

    Of more than `pace.most` some are drawn; no privacy is claimed for the draw.
    """
    end = time.monotonic() + pace.gather
    while True:
        online = sorted(set(grid.get_node_ids()) & set(roster))
        if len(online) >= pace.expected or time.monotonic() >= end:
            return sorted(secrets.SystemRandom().sample(online, min(len(online), pace.most)))
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
    desk = _Desk(grid, release, key, pace, Intake(grid, expected.size + OVERHEAD))
    desk.send([_Ask(node, each) for node, each in orders.items()])
    for message, asked in desk.replies(begun + pace.deadline, halted):
        try:
            tally.bytes_in += _admit(message, asked, expected, aggregate, tally)
        except UpdateRefused as refusal:
            tally.rejected[refusal.reason] += 1
    tally.seconds = time.monotonic() - begun
    return tally


def nonce(secret: bytes, device: str) -> str:
    """Return the nonce of the device with this key in the round with this secret: 32 hex digits."""
    return hmac.digest(secret, device.encode(), hashlib.sha256)[:NONCE_BYTES].hex()


@dataclass(frozen=True, slots=True)
class _Ask:
    """One order to one node, and how often it was sent before."""

    node: int
    order: Order
    earlier: int = 0


@dataclass(frozen=True, slots=True)
class _Lost:
    """An order whose node was lost: since when (monotonic seconds), and what Flower said."""

    ask: _Ask
    since: float
    message: Message


class _Desk:
    """What is asked and not yet answered in one round."""

    def __init__(self, grid: Grid, release: Release, key: Ed25519PrivateKey, pace: Pace, intake: Intake) -> None:
        self._grid, self._key, self._pace, self._intake = grid, key, pace, intake
        self._release = ConfigRecord({"envelope": release.envelope, "adapter": release.adapter})
        self._pending: dict[str, _Ask] = {}  # Flower's id of our message -> what it asked
        self._lost: dict[int, _Lost] = {}  # node -> what to ask again once it is back

    def send(self, asks: Sequence[_Ask]) -> None:
        """Push orders, a batch at a time; those that Flower does not take count as missing."""
        for start in range(0, len(asks), BATCH):
            batch = asks[start : start + BATCH]
            names = self._grid.push_messages([self._message(ask) for ask in batch])
            self._pending.update({name: ask for name, ask in zip(names, batch, strict=False) if name})

    def replies(self, end: float, halted: Callable[[], bool]) -> Iterator[tuple[Message | None, Order]]:
        """Yield replies as they come, attributed by our own map of message ids; None for one that cannot be read.

        A node that Flower reports lost is asked again when it is back: the very same order, so at no cost to it.
        """
        wait = self._pace.poll
        while (self._pending or self._lost) and time.monotonic() < end and not halted():
            wait = min(wait * SLOWER, self._pace.poll * SLOWEST)
            for name, message in self._intake.look(list(self._pending)):
                wait, ask = self._pace.poll, self._pending.pop(name)
                if message is not None and _node_lost(message) and ask.earlier < RETRIES:
                    again = replace(ask, earlier=ask.earlier + 1)
                    self._lost[ask.node] = _Lost(again, time.monotonic(), message)
                else:
                    yield message, ask.order
            yield from self._ask_again()
            if self._pending or self._lost:
                time.sleep(wait)

    def _ask_again(self) -> Iterator[tuple[Message, Order]]:
        """Send to nodes that are back; yield what Flower said of those that have been away for too long."""
        if not self._lost:
            return
        online = set(self._grid.get_node_ids())
        self.send([self._lost.pop(node).ask for node in online & set(self._lost)])
        for node, lost in list(self._lost.items()):
            if time.monotonic() - lost.since > AWAY:
                del self._lost[node]
                yield lost.message, lost.ask.order

    def _message(self, ask: _Ask) -> Message:
        """The order as Flower carries it."""
        signed = sign_order(ask.order, self._key)
        order = ConfigRecord({"body": signed.body, "signature": signed.signature})
        content = RecordDict({"order": order, "release": self._release})
        return Message(content, ask.node, "train", ttl=self._pace.deadline + 60.0, group_id=str(ask.order.round))


def _node_lost(message: Message) -> bool:
    """Whether Flower, not the device, says that nobody will answer."""
    return bool(message.has_error()) and message.error.code in NODE_LOST


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
