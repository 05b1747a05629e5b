"""Replies as Flower's SuperLink hands them out, bounded: what one is made of is looked at before any of it is fetched.

Flower's own Grid fetches whatever a reply drags along into memory, and one reply that cannot be unpacked takes down
the others of the same request, which are gone by then. Here a reply is three small objects or it is refused unread,
one that is still being uploaded is left for the next look, and what goes wrong with one stays with that one; what is
in it is the business of `federation.envelope`. Uses private modules of Flower 1.41 (pinned; see the contract test).
Any other Grid is asked for one reply at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import httpx
from flwr.app import Error, Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, iterate_object_tree
from flwr.superlink.grid.http_grid import HttpGrid

from federation.envelope import Envelopes
from federation.protocol import Reply
from federation.update import UpdateRefused

BATCH = 64  # replies asked for at once
OBJECTS = 3  # a message, its dictionary of records, the one record
OVERHEAD = 4096  # bytes of a reply besides its payload

Answer: TypeAlias = Reply | Error | UpdateRefused  # what a device says, Flower in its place, or why it is unreadable


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A reply Flower has announced; its objects may still be on their way."""

    reply: str  # Flower's id of it
    objects: tuple[str, ...]


class Intake:
    """Fetches replies over one Grid.

    Args:
        size: bytes of an update's payload.
    """

    def __init__(self, grid: Grid, size: int) -> None:
        self._grid, self._limit, self._envelopes = grid, size + OVERHEAD, Envelopes(size)
        self._arriving: dict[str, _Arriving] = {}

    def look(self, asked: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        """Yield (id of the message that was answered, the answer) for all that have come."""
        if not isinstance(self._grid, HttpGrid):
            yield from self._singly(asked)
            return
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            self._announced(self._grid, batch)
            for order in batch:
                if order in self._arriving and (found := self._safely(self._grid, self._arriving[order])) is not None:
                    del self._arriving[order]
                    yield order, found

    def _singly(self, asked: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        for order in asked:
            try:
                messages = list(self._grid.pull_messages([order]))
            except Exception:  # whatever a hostile reply provokes in Flower's unpacking stays with that reply
                yield order, UpdateRefused("unreadable")
                continue
            if messages:
                yield order, self._read(*_taken_apart(messages[0]))

    def _announced(self, grid: HttpGrid, asked: Sequence[str]) -> None:
        """Note which replies there are and what they are made of."""
        wanted = set(asked) - set(self._arriving)
        if not wanted:
            return
        answer = grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(wanted)))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            objects = (node.object_id for node in iterate_object_tree(tree))
            found = _Arriving(message.metadata.message_id, tuple(islice(objects, OBJECTS + 1)))
            self._arriving[message.metadata.reply_to_message_id] = found

    def _safely(self, grid: HttpGrid, announced: _Arriving) -> Answer | None:
        """`_fetch`; what the SuperLink refuses to hand out cannot be read."""
        try:
            return self._fetch(grid, announced)
        except httpx.HTTPStatusError:
            return UpdateRefused("unreadable")

    def _fetch(self, grid: HttpGrid, announced: _Arriving) -> Answer | None:
        """The answer, None when it is not whole yet."""
        contents: dict[str, bytes] = {}
        for name in announced.objects if len(announced.objects) <= OBJECTS else ():
            request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=name)
            answer = grid._runtime_client.PullObject(request)
            if answer.object_found and not answer.object_available:
                return None
            contents[name] = answer.object_content
        request = ConfirmMessageReceivedRequest(
            node=grid.node, run_id=grid.run.run_id, message_object_id=announced.reply
        )
        grid._runtime_client.ConfirmMessageReceived(request)
        return self._read(announced.reply, contents)

    def _read(self, reply: str, contents: Mapping[str, bytes]) -> Answer:
        """What the objects of one reply say."""
        if not 0 < sum(map(len, contents.values())) <= self._limit:
            return UpdateRefused("unreadable")
        try:
            return self._envelopes.read(reply, contents)
        except UpdateRefused as refusal:
            return refusal


def _taken_apart(message: Message) -> tuple[str, dict[str, bytes]]:
    """A message that another Grid has put together: its name and its objects."""
    return message.object_id, {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
