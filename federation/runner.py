"""Our own task runner: takes client tasks from SuperNodes and answers them with installed code only.

It stands where Flower would start ``flower-superexec`` and a fresh ``flwr-clientapp`` per message. The bundle a server
ships is received as bytes and dropped: never unpacked, imported or executed. One process may serve several SuperNodes,
one task at a time, with the model loaded once. Uses private modules of Flower 1.41 (pinned; see the contract test).
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

log = logging.getLogger(__name__)

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
CLIENT_TASK = "flwr-clientapp"  # never an agent's task
FAILED = 101  # error code of ours for a task that failed here; carries no reason
POLL = 1.0  # seconds; each poll leaves a nonce in the SuperNode's database


@dataclass(frozen=True, slots=True)
class Seat:
    """One SuperNode this runner serves, and the app that answers for it."""

    address: str  # host:port of the SuperNode's runtime interface, on loopback
    secret: Path  # shared with that SuperNode
    app: ClientApp


def serve(seats: Sequence[Seat], *, running: Callable[[], bool], poll: float = POLL) -> None:
    """Answer tasks of all seats in turn while `running` says so. A SuperNode that is away is asked again later."""
    doors = [(seat, _client(seat.address, "SuperExec", _secret(seat))) for seat in seats]
    try:
        while running():
            served = [_serve_one(seat, door) for seat, door in doors]
            if not any(served):
                time.sleep(poll)
    finally:
        for _, door in doors:
            door.close()


def _serve_one(seat: Seat, door: RuntimeHttpClient) -> bool:
    """Answer at most one task of one seat; say whether there was one."""
    try:
        found = door.AcquireTask(AcquireTaskRequest(supported_task_types=[CLIENT_TASK]))
        if not (found.HasField("task") and found.token):
            return False
        with _task(seat, found.token) as client:
            _answer(seat.app, client)
    except httpx.HTTPError:
        return False
    return True


def _answer(app: ClientApp, client: RuntimeHttpClient) -> None:
    """Pull one message, let the installed app answer it, push the reply."""
    context: Context | None = None
    state = "failed"
    try:
        message, context, _run, _bundle = pull_task_input(client)
        try:
            reply = app(message, context)
            state = "completed"
        except Exception as error:  # nothing about the failure leaves the device
            log.warning("a task failed: %s", type(error).__name__)
            reply = Message(Error(code=FAILED, reason="failed"), reply_to=message)
        push_message(client, reply, context)
    finally:
        push_task_output(client, context, state, "")


@contextmanager
def _task(seat: Seat, token: str) -> Iterator[RuntimeHttpClient]:
    """Hold one task: its token on every request, its heartbeat in the background."""
    client = _client(seat.address, CLIENT_TASK, RuntimeTokenHttpInterceptor(token))
    heartbeat = HeartbeatSender(lambda: _beat(client))
    heartbeat.start()
    try:
        yield client
    finally:
        if heartbeat.is_running:
            heartbeat.stop()
        client.close()


def _beat(client: RuntimeHttpClient) -> bool:
    """Say that the task is alive. Flower's own function would interrupt the whole process when a task was given up."""
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError:
        log.warning("a task is no longer wanted")
    return True


def _client(address: str, component: str, *interceptors: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """A connection to a SuperNode on this machine."""
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), *interceptors],
    )


def _secret(seat: Seat) -> SuperExecAuthHttpInterceptor:
    """Signs the request for a task with the secret shared with the SuperNode."""
    return SuperExecAuthHttpInterceptor(master_secret=seat.secret.read_bytes(), protected_methods={ACQUIRE})
