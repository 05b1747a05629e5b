"""Light devices against a real SuperLink: Flower's ten verbs over HTTP, long jittered polls, no SuperNode, no bundle.

A stock SuperNode asks every three seconds and starts three processes; this is a key, a timer and a function. It joins
nothing and decides nothing: what a device must check before it answers is in `federation.device`.
"""

import base64
import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from federation import adapter
from federation.plan import Plan
from federation.protocol import SignedOrder, open_order, reply_fields, sign_reply
from federation.simulation import on_the_wire
from federation.update import Expected, PrivateUpdate

HEARTBEAT = 1800.0  # seconds that the SuperLink may wait for a word: the most that Flower allows
LATER = 0.5  # seconds until an object is asked for again that is still on its way


class LightDevice:
    """One device: a node key for Flower, a device key for the fleet, and updates of pure noise."""

    def __init__(self, client: httpx.Client, plan: Plan, fleet: bytes, asked: Counter[str]) -> None:
        self.key, self.node_key = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
        self._client, self._plan, self._fleet, self._asked = client, plan, fleet, asked
        self._public = public_key_to_bytes(self.node_key.public_key())
        self._node = Node()

    @property
    def ssh_key(self) -> bytes:
        """The node key's public half as an operator registers it."""
        form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        return self.node_key.public_key().public_bytes(*form)

    def activate(self) -> None:
        """Say that this node is there."""
        request = fleet_pb2.ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT)
        self._node = Node(node_id=self._call("activate-node", request, fleet_pb2.ActivateNodeResponse()).node_id)

    def look(self) -> None:
        """Ask for an order; answer it."""
        request = fleet_pb2.PullMessagesRequest(node=self._node)
        found = self._call("pull-messages", request, fleet_pb2.PullMessagesResponse())
        for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            run, name = proto.metadata.run_id, tree.object_id
            contents = {each.object_id: self._object(run, each.object_id) for each in iterate_object_tree(tree)}
            confirm = message_pb2.ConfirmMessageReceivedRequest(node=self._node, run_id=run, message_object_id=name)
            self._call("confirm-message-received", confirm, message_pb2.ConfirmMessageReceivedResponse())
            message = inflate_object_from_contents(name, contents)
            message.metadata.__dict__["_message_id"] = name
            self._push(run, self._answer(message))

    def _object(self, run: int, name: str) -> bytes:
        """Fetch one object, waiting while it is on its way."""
        request = message_pb2.PullObjectRequest(node=self._node, run_id=run, object_id=name)
        while not (found := self._call("pull-object", request, message_pb2.PullObjectResponse())).object_available:
            if not found.object_found:
                raise RuntimeError("an object is gone")
            time.sleep(LATER)
        return bytes(found.object_content)

    def _answer(self, message: Message) -> Message:
        """A well-formed update, rightly signed."""
        record = message.content["order"]
        order = open_order(SignedOrder(record["body"], record["signature"]), self._fleet)
        layout = adapter.layout(self._plan.geometry, order.spec)
        expected = Expected(self._plan.base, order.release, order.round, order.spec, layout)
        levels = np.rint(np.random.default_rng().normal(0, 6, expected.count)).astype(np.int8)
        reply = sign_reply(order, PrivateUpdate(expected, levels).encode(), self.key)
        return Message(RecordDict({"reply": ConfigRecord(dict(reply_fields(reply)))}), reply_to=message)

    def _push(self, run: int, reply: Message) -> None:
        """Send a reply: what it is, then its objects."""
        raw = on_the_wire(reply)
        request = fleet_pb2.PushMessagesRequest(
            node=self._node, messages_list=[raw.message], message_object_trees=[raw.tree], clientapp_runtime_list=[0.0]
        )
        taken = self._call("push-messages", request, fleet_pb2.PushMessagesResponse())
        for name in taken.objects_to_push:
            part = message_pb2.PushObjectRequest(
                node=self._node, run_id=run, session_id=taken.session_id, object_id=name,
                object_content=raw.contents[name],
            )  # fmt: skip
            self._call("push-object", part, message_pb2.PushObjectResponse())

    def _call(self, verb: str, request: Any, answer: Any) -> Any:  # noqa: ANN401 - Flower's messages
        """One request, signed as a SuperNode signs."""
        stamp = now().isoformat()
        headers = {
            "content-type": "application/protobuf",
            "accept": "application/protobuf",
            "flwr-public-key": base64.b64encode(self._public).decode(),
            "flwr-timestamp": stamp,
            "flwr-signature": base64.b64encode(sign_message(self.node_key, stamp.encode())).decode(),
            "flwr-package-name": "flwr",
            "flwr-package-version": "1.41.0",
            "flwr-component-name": "SuperNode",
        }
        response = self._client.post(f"/v1/fleet/{verb}", content=request.SerializeToString(), headers=headers)
        self._asked[verb if response.is_success else str(response.status_code)] += 1
        response.raise_for_status()
        answer.ParseFromString(response.content)
        return answer


class Polls:
    """Lets every device look now and then, each at its own moment, from a few threads."""

    def __init__(self, devices: Sequence[LightDevice], every: float, threads: int = 4) -> None:
        self._every, self._lock, self._over = every, threading.Lock(), threading.Event()
        self._due = [(time.monotonic() + random.uniform(0, every), n, each) for n, each in enumerate(devices)]
        heapq.heapify(self._due)
        self.failed: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._over.wait(0.005):
            with self._lock:
                turn = heapq.heappop(self._due) if self._due and self._due[0][0] <= time.monotonic() else None
            if turn is None:
                continue
            _, number, device = turn
            try:
                device.look()
            except (httpx.HTTPError, RuntimeError) as error:
                self.failed[type(error).__name__] += 1
            with self._lock:
                heapq.heappush(self._due, (time.monotonic() + self._every * random.uniform(0.5, 1.5), number, device))
