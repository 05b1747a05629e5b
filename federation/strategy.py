"""One round over Flower's Grid, streaming: each reply is checked and added the moment it comes.

Not one of Flower's strategies: those hold all replies in memory, trust the sender and the example count a client
names, and let one malformed reply abort the run. Here a reply belongs to the node *we* asked, must be signed by the
key *we* enrolled, and can only be counted, never raise.
"""

import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from federation.aggregate import Aggregate
from federation.intake import BATCH, Answer, Intake
from federation.protocol import Order, check_reply, sign_order
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
    desk = _Desk(grid, nodes, order, secret, release, key, pace, Intake(grid, expected.size))
    desk.send(list(nodes))
    for answer, asked in desk.replies(begun + pace.deadline, halted):
        try:
            tally.bytes_in += _admit(answer, asked, expected, aggregate, tally)
        except UpdateRefused as refusal:
            tally.rejected[refusal.reason] += 1
    tally.seconds = time.monotonic() - begun
    return tally


def nonce(secret: bytes, device: str) -> str:
    """Return the nonce of the device with this key in the round with this secret: 32 hex digits."""
    return hmac.digest(secret, device.encode(), hashlib.sha256)[:NONCE_BYTES].hex()


@dataclass(frozen=True, slots=True)
class _Lost:
    """A node that was lost: since when (monotonic seconds), and what Flower said."""

    since: float
    error: Error


class _Desk:
    """What is asked and not yet answered in one round: of each node no more than Flower's name for our message."""

    def __init__(
        self, grid: Grid, nodes: Mapping[int, str], order: Order, secret: bytes, release: Release,
        key: Ed25519PrivateKey, pace: Pace, intake: Intake,
    ) -> None:  # fmt: skip
        self._grid, self._nodes, self._order, self._secret = grid, nodes, order, secret
        self._key, self._pace, self._intake = key, pace, intake
        self._release = ConfigRecord({"envelope": release.envelope, "adapter": release.adapter})
        self._pending: dict[str, int] = {}  # Flower's id of our message -> the node it asks
        self._lost: dict[int, _Lost] = {}  # node -> to be asked again once it is back
        self._again: Counter[int] = Counter()  # how often a node was asked again

    def send(self, nodes: Sequence[int]) -> None:
        """Push orders, a batch at a time; those that Flower does not take count as missing."""
        for start in range(0, len(nodes), BATCH):
            batch = nodes[start : start + BATCH]
            names = self._grid.push_messages([self._message(node) for node in batch])
            self._pending.update({name: node for name, node in zip(names, batch, strict=False) if name})

    def replies(self, end: float, halted: Callable[[], bool]) -> Iterator[tuple[Answer, Order]]:
        """Yield answers as they come with the order each is to, attributed by our own map of message ids.

        A node that Flower reports lost is asked again when it is back: the very same order, so at no cost to it.
        """
        wait = self._pace.poll
        while (self._pending or self._lost) and time.monotonic() < end and not halted():
            wait = min(wait * SLOWER, self._pace.poll * SLOWEST)
            for name, answer in self._intake.look(list(self._pending)):
                wait, node = self._pace.poll, self._pending.pop(name)
                if isinstance(answer, Error) and answer.code in NODE_LOST and self._again[node] < RETRIES:
                    self._lost[node] = _Lost(time.monotonic(), answer)
                else:
                    yield answer, self._to(node)
            yield from self._ask_again()
            if self._pending or self._lost:
                time.sleep(wait)

    def _ask_again(self) -> Iterator[tuple[Answer, Order]]:
        """Send to nodes that are back; yield what Flower said of those that have been away for too long."""
        if not self._lost:
            return
        back = set(self._grid.get_node_ids()) & set(self._lost)
        self._again.update(back)
        self.send(sorted(back))
        self._lost = {node: lost for node, lost in self._lost.items() if node not in back}
        for node, lost in list(self._lost.items()):
            if time.monotonic() - lost.since > AWAY:
                del self._lost[node]
                yield lost.error, self._to(node)

    def _to(self, node: int) -> Order:
        """The order to one node; the same whenever it is made."""
        device = self._nodes[node]
        return replace(self._order, nonce=nonce(self._secret, device), device=device)

    def _message(self, node: int) -> Message:
        """The order as Flower carries it."""
        signed = sign_order(self._to(node), self._key)
        order = ConfigRecord({"body": signed.body, "signature": signed.signature})
        content = RecordDict({"order": order, "release": self._release})
        return Message(content, node, "train", ttl=self._pace.deadline + 60.0, group_id=str(self._order.round))


def _admit(answer: Answer, order: Order, expected: Expected, aggregate: Aggregate, tally: Tally) -> int:
    """Check one answer and add it; return the size of its payload.

    Raises:
        UpdateRefused: with the reason, whatever is wrong.
    """
    if isinstance(answer, UpdateRefused):
        raise answer
    if isinstance(answer, Error):
        raise UpdateRefused("error")
    check_reply(answer, order)
    if answer.decline:
        tally.declined[answer.decline] += 1
        return 0
    aggregate.add(decode(answer.payload, expected))
    tally.accepted += 1
    return len(answer.payload)
