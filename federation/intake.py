"""Replies as Flower's SuperLink hands them out, bounded: what one is made of is looked at before any of it is fetched.

Flower's own Grid fetches whatever a reply drags along into memory, and one reply that cannot be unpacked takes down
the others of the same request, which are gone by then. Here a reply is three small objects or it is refused unread,
one that is still being uploaded is left for the next look, and what goes wrong with one stays with that one. Uses
private modules of Flower 1.41 (pinned; see the contract test). Any other Grid is asked for one reply at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import httpx
from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid.http_grid import HttpGrid

BATCH = 64  # replies asked for at once
OBJECTS = 3  # a message, its dictionary of records, the one record
OVERHEAD = 4096  # bytes of a reply besides its payload


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A reply Flower has announced; its objects may still be on their way."""

    reply: str  # Flower's id of it
    objects: tuple[str, ...]


class Intake:
    """Fetches replies over one Grid.

    Args:
        limit: most bytes the objects of one reply may have together.
    """

    def __init__(self, grid: Grid, limit: int) -> None:
        self._grid, self._limit = grid, limit
        self._arriving: dict[str, _Arriving] = {}

    def look(self, asked: Sequence[str]) -> Iterator[tuple[str, Message | None]]:
        """Yield (id of the message that was answered, the reply) for all that have come.

        None stands for a reply that cannot be read: too many objects, too many bytes, or not what it says it is.
        """
        if not isinstance(self._grid, HttpGrid):
            yield from self._singly(asked)
            return
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            self._announced(self._grid, batch)
            for order in batch:
                if order in self._arriving and (found := self._safely(self._grid, self._arriving[order])) is not _LATER:
                    del self._arriving[order]
                    yield order, found

    def _singly(self, asked: Sequence[str]) -> Iterator[tuple[str, Message | None]]:
        for order in asked:
            try:
                messages = list(self._grid.pull_messages([order]))
            except Exception:  # whatever a hostile reply provokes in Flower's unpacking stays with that reply
                yield order, None
                continue
            if messages:
                yield order, messages[0]

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

    def _safely(self, grid: HttpGrid, announced: _Arriving) -> Message | None:
        """`_fetch`; what the SuperLink refuses to hand out cannot be read."""
        try:
            return self._fetch(grid, announced)
        except httpx.HTTPStatusError:
            return None

    def _fetch(self, grid: HttpGrid, announced: _Arriving) -> Message | None:
        """The reply, None when it cannot be read, `_LATER` when it is not whole yet."""
        contents: dict[str, bytes] = {}
        for name in announced.objects if len(announced.objects) <= OBJECTS else ():
            request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=name)
            answer = grid._runtime_client.PullObject(request)
            if answer.object_found and not answer.object_available:
                return _LATER
            contents[name] = answer.object_content
        request = ConfirmMessageReceivedRequest(
            node=grid.node, run_id=grid.run.run_id, message_object_id=announced.reply
        )
        grid._runtime_client.ConfirmMessageReceived(request)
        if sum(map(len, contents.values())) > self._limit:
            return None
        try:
            message = inflate_object_from_contents(announced.reply, contents)
        except Exception:  # as above
            return None
        return message if isinstance(message, Message) else None


_LATER = Message.__new__(Message)  # stands for a reply that is announced and not yet whole
