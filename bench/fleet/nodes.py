"""Light nodes for a real SuperLink: Flower's fleet interface over HTTP, without a SuperNode and without its 3 s poll.

A node is a key and a due time. It looks for orders at long, jittered intervals, fetches what it is sent, answers with
its virtual device and pushes the reply. No bundle is ever asked for. Private modules of Flower 1.41 are used.
"""

import base64
import heapq
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives import serialization
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

HEARTBEAT = 600.0  # seconds a node is held to be online
UPLOADS = 50  # looks for an object that the server is still uploading
HEADERS = {
    "content-type": "application/protobuf",
    "accept": "application/protobuf",
    "flwr-package-name": "flwr",
    "flwr-package-version": "1.41.0",
    "flwr-component-name": "SuperNode",
}
Device = Callable[[Message], Message]
Response = TypeVar("Response")


@dataclass
class LightNode:
    """One node: its key file, its device, its connection."""

    key: Path
    device: Device
    http: httpx.Client
    requests: int = 0
    node: Node = field(default_factory=Node)

    def __post_init__(self) -> None:
        self._private: Any = serialization.load_ssh_private_key(self.key.read_bytes(), password=None)
        self._public = public_key_to_bytes(self._private.public_key())

    def call(self, verb: str, request: Any, response: Response) -> Response:  # noqa: ANN401 - protobuf
        """One request, signed as a SuperNode signs it."""
        moment = now().isoformat()
        signature = sign_message(self._private, moment.encode())
        headers = {
            **HEADERS,
            "flwr-public-key": base64.b64encode(self._public).decode(),
            "flwr-timestamp": moment,
            "flwr-signature": base64.b64encode(signature).decode(),
        }
        self.requests += 1
        answer = self.http.post(f"/v1/fleet/{verb}", content=request.SerializeToString(), headers=headers)
        answer.raise_for_status()
        response.ParseFromString(answer.content)  # type: ignore[attr-defined]
        return response

    def activate(self) -> None:
        """Be online."""
        request = fleet_pb2.ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT)
        self.node = Node(node_id=self.call("activate-node", request, fleet_pb2.ActivateNodeResponse()).node_id)

    def look(self) -> bool:
        """Answer one order, if there is one."""
        request = fleet_pb2.PullMessagesRequest(node=self.node)
        found = self.call("pull-messages", request, fleet_pb2.PullMessagesResponse())
        for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            run = proto.metadata.run_id
            names = dict.fromkeys(each.object_id for each in iterate_object_tree(tree))
            contents = {name: self._object(run, name) for name in names}
            received = message_pb2.ConfirmMessageReceivedRequest(
                node=self.node, run_id=run, message_object_id=tree.object_id
            )
            self.call("confirm-message-received", received, message_pb2.ConfirmMessageReceivedResponse())
            order = inflate_object_from_contents(tree.object_id, contents)
            order.metadata.__dict__["_message_id"] = tree.object_id
            self._push(run, self.device(order))
        return bool(found.messages_list)

    def _object(self, run: int, name: str) -> bytes:
        request = message_pb2.PullObjectRequest(node=self.node, run_id=run, object_id=name)
        for _ in range(UPLOADS):
            answer = self.call("pull-object", request, message_pb2.PullObjectResponse())
            if answer.object_available:
                return bytes(answer.object_content)
            time.sleep(0.2)
        raise RuntimeError("an order never became whole")

    def _push(self, run: int, reply: Message) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = fleet_pb2.PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            answer = self.call("push-messages", request, fleet_pb2.PushMessagesResponse())
            parts = get_all_nested_objects(reply)
            for name in answer.objects_to_push:
                push = message_pb2.PushObjectRequest(
                    node=self.node,
                    run_id=run,
                    session_id=answer.session_id,
                    object_id=name,
                    object_content=parts[name].deflate(),
                )
                self.call("push-object", push, message_pb2.PushObjectResponse())


class Swarm:
    """Many light nodes on a few threads, each looking every `interval` seconds, give or take a half."""

    def __init__(self, nodes: list[LightNode], interval: float, threads: int = 4) -> None:
        self._interval, self._lock, self._going = interval, threading.Lock(), True
        self._due = [
            (time.monotonic() + random.uniform(0, interval), number, node) for number, node in enumerate(nodes)
        ]
        heapq.heapify(self._due)
        self.answered = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the looks at hand end."""
        self._going = False
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._going:
            with self._lock:
                due = heapq.heappop(self._due) if self._due and self._due[0][0] <= time.monotonic() else None
            if due is None:
                time.sleep(0.05)
                continue
            try:
                self.answered += due[2].look()
            except (httpx.HTTPError, RuntimeError) as error:
                self.failures.append(type(error).__name__)
            with self._lock:
                heapq.heappush(
                    self._due, (time.monotonic() + self._interval * random.uniform(0.5, 1.5), due[1], due[2])
                )


def connection(address: str, authority: Path) -> httpx.Client:
    """One pool of connections to the SuperLink."""
    context = ssl.create_default_context(cafile=str(authority))
    return httpx.Client(base_url=f"https://{address}", verify=context, timeout=120.0, trust_env=False)
