"""A SuperLink without a network, for tests and scale runs: Flower's own Grid over a link that lives in this process.

Orders and replies take Flower's whole path of encoding, objects and decoding; only HTTP is left out. A node is a
function from a message to its reply, so a thousand devices cost a thousand closures. Nothing here is used in a
deployment.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import GetNodesResponse, PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid.http_grid import HttpGrid


@dataclass(frozen=True, slots=True)
class Raw:
    """A reply as its objects on the wire: what a node may push that speaks Flower's protocol with its own tongue."""

    tree: ObjectTree
    contents: Mapping[str, bytes]
    message: ProtoMessage


Answer = Callable[[Message], Message | Raw | None]  # None: this node never answers


class LoopGrid(HttpGrid):  # type: ignore[misc]
    """Flower's Grid, with `answers` (node id -> function) in place of a SuperLink and its nodes.

    Args:
        at_once: replies handed out per request; a node answers when its reply is asked for, so that no more than
            these are held at a time. None: all there are, as a SuperLink does.
    """

    def __init__(self, answers: Mapping[int, Answer], *, at_once: int | None = 1) -> None:
        super().__init__(token="simulated")
        self._link = _Link(answers, at_once)
        self._run = SimpleNamespace(run_id=1)

    @property
    def run(self) -> Any:  # noqa: ANN401 - Flower's Run, of which only the id is asked
        """The one run."""
        return self._run

    @property
    def node_seconds(self) -> float:
        """CPU seconds of this process that went into the nodes' side."""
        return self._link.node_seconds

    @property
    def _runtime_client(self) -> "_Link":
        return self._link


class _Link:
    """The six calls of Flower's runtime interface that a server app makes, under Flower's names."""

    def __init__(self, answers: Mapping[int, Answer], at_once: int | None) -> None:
        self._answers, self._at_once = answers, at_once
        self.node_seconds = 0.0
        self._objects: dict[str, bytes] = {}
        self._users: Counter[str] = Counter()  # of each object
        self._asked: dict[str, tuple[int, tuple[str, ...]]] = {}  # order -> node, names of the order's objects

    def GetNodes(self, _request: object) -> GetNodesResponse:
        """All nodes are online."""
        return GetNodesResponse(nodes=[NodeInfo(node_id=node) for node in self._answers])

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: ANN401
        """Take orders; their objects come next."""
        missing: dict[str, None] = {}
        for message, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            names = tuple(node.object_id for node in iterate_object_tree(tree))
            self._asked[message.metadata.message_id] = (message.metadata.dst_node_id, names)
            self._users.update(names)
            missing |= dict.fromkeys(name for name in names if name not in self._objects)
        ids = [message.metadata.message_id for message in request.messages_list]
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=list(missing))

    def PushObject(self, request: Any) -> PushObjectResponse:  # noqa: ANN401
        """Take one object."""
        self._objects[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: ANN401
        """Let the nodes answer."""
        found = PullAppMessagesResponse()
        for name in request.message_ids:
            if name in self._asked and (raw := self._answer(name)) is not None:
                found.messages_list.append(raw.message)
                found.message_object_trees.append(raw.tree)
                if len(found.messages_list) == self._at_once:
                    break
        return found

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: ANN401
        """Hand out one object; it is gone when everybody who needs it has it."""
        content = self._objects.get(request.object_id)
        self._done([request.object_id])
        return PullObjectResponse(
            object_found=content is not None, object_available=True, object_content=content or b""
        )

    def ConfirmMessageReceived(self, _request: object) -> ConfirmMessageReceivedResponse:
        """Objects are gone already."""
        return ConfirmMessageReceivedResponse()

    def _answer(self, name: str) -> Raw | None:
        """What the node of one order says; its objects wait to be pulled."""
        begun = time.thread_time()
        node, names = self._asked.pop(name)
        order = inflate_object_from_contents(name, self._objects, keep_object_contents=True)
        order.metadata.__dict__["_message_id"] = name
        self._done(names)
        reply = self._answers[node](order)
        raw = on_the_wire(reply) if isinstance(reply, Message) else reply
        if raw is not None:
            self._objects.update(raw.contents)
            self._users.update(node.object_id for node in iterate_object_tree(raw.tree))
        self.node_seconds += time.thread_time() - begun
        return raw

    def _done(self, names: Iterable[str]) -> None:
        """One user less for each of these objects."""
        for name in names:
            self._users[name] -= 1
            if self._users[name] <= 0:
                self._objects.pop(name, None)
                del self._users[name]


def on_the_wire(reply: Message) -> Raw:
    """A reply as a node pushes it."""
    with no_object_id_recompute():  # each object is hashed once, as a SuperNode does it
        reply.metadata.__dict__["_message_id"] = reply.object_id
        contents = {name: each.deflate() for name, each in get_all_nested_objects(reply).items()}
        return Raw(get_object_tree(reply), contents, message_to_proto(remove_content_from_message(reply)))
