"""What we rely on inside Flower: the exact version, and the private functions with the shapes we call them in."""

import inspect
from importlib.metadata import entry_points, version

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.proto import control_pb2, fleet_pb2, message_pb2, node_pb2, runtime_pb2
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.runtime import run_clientapp

from federation.client_app import client_app
from federation.control import BUNDLE
from federation.runner import ACQUIRE, CLIENT_TASK
from tests.federation.desk import Fleet


def parameters(function: object) -> list[str]:
    """Names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def test_flower_is_the_pinned_version() -> None:
    """Private modules may change with any release."""
    assert version("flwr") == "1.41.0"


def test_the_functions_the_runner_calls_take_what_it_gives() -> None:
    """Pull, push and heartbeat."""
    assert parameters(run_clientapp.pull_task_input) == ["client"]
    assert parameters(run_clientapp.push_message) == ["client", "message", "context"]
    assert parameters(run_clientapp.push_task_output) == ["client", "context", "sub_status", "details"]
    assert parameters(HeartbeatSender)[0] == "heartbeat_fn"
    assert hasattr(RuntimeHttpClient, "SendTaskHeartbeat")
    assert {"start", "stop", "is_running"} <= set(dir(HeartbeatSender))


def test_the_interceptors_and_clients_are_built_as_we_build_them() -> None:
    """Token, version and secret."""
    assert parameters(RuntimeTokenHttpInterceptor)[0] == "token"
    assert "component_name" in parameters(RuntimeVersionHttpInterceptor)
    assert {"master_secret", "protected_methods"} <= set(parameters(SuperExecAuthHttpInterceptor))
    wanted = {"server_address", "insecure", "root_certificates", "interceptors"}
    for client in (RuntimeHttpClient, ControlHttpClient):
        assert wanted <= set(parameters(client.from_server_address))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (runtime_pb2.AcquireTaskRequest, "supported_task_types"),
        (runtime_pb2.AcquireTaskResponse, "token"),
        (control_pb2.RegisterNodeRequest, "public_key"),
        (control_pb2.RegisterNodeResponse, "node_id"),
        (control_pb2.StartRunRequest, "override_config"),
        (control_pb2.ListNodesResponse, "nodes_info"),
        (control_pb2.ListRunsResponse, "run_dict"),
        (runtime_pb2.PullAppMessagesRequest, "message_ids"),
        (runtime_pb2.PullAppMessagesResponse, "message_object_trees"),
        (message_pb2.PullObjectResponse, "object_available"),
        (message_pb2.ConfirmMessageReceivedRequest, "message_object_id"),
        (message_pb2.ObjectTree, "children"),
        (control_pb2.UnregisterNodeRequest, "node_id"),
        (control_pb2.StopRunRequest, "run_id"),
        (node_pb2.NodeInfo, "public_key"),
        (node_pb2.NodeInfo, "status"),
        (fleet_pb2.ActivateNodeRequest, "public_key"),
        (runtime_pb2.SendTaskHeartbeatResponse, "success"),
    ],
)
def test_the_messages_have_the_fields_we_use(message: type, field: str) -> None:
    """Protobuf fields by name."""
    assert field in message.DESCRIPTOR.fields_by_name


def test_the_grid_lets_its_client_be_asked_directly() -> None:
    """The bounded intake speaks Flower's runtime interface through the Grid's own connection."""
    assert isinstance(inspect.getattr_static(HttpGrid, "_runtime_client"), property)
    assert {"PullMessages", "PullObject", "ConfirmMessageReceived"} <= set(dir(RuntimeHttpClient))
    assert {"object_id", "object_contents", "objects"} <= set(parameters(inflate_object_from_contents))
    assert parameters(iterate_object_tree) == ["tree"]


def test_the_words_for_a_nodes_standing_are_those_we_compare_with() -> None:
    """`Control.online` and `Control.register` go by them."""
    assert (NodeStatus.ONLINE, NodeStatus.UNREGISTERED) == ("online", "unregistered")


def test_a_node_key_is_named_as_the_superlink_names_it() -> None:
    """Enrolment and the test of strangers sign as a SuperNode does."""
    assert parameters(public_key_to_bytes) == ["public_key"]
    assert parameters(sign_message)[:2] == ["private_key", "message"]


def test_the_names_on_the_wire_are_what_we_say() -> None:
    """Method and task type as Flower's own executor names them."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
    from flwr.supercore.superexec.run_superexec import _SUPEREXEC_AUTH_METHODS

    assert ACQUIRE in _SUPEREXEC_AUTH_METHODS
    assert CLIENT_TASK in {str(getattr(kind, "value", kind)) for kind in TASK_TYPE_TO_COMMAND}
    installed = {entry.name for entry in entry_points(group="console_scripts")}
    assert {"flower-superlink", "flower-supernode", "flower-superexec"} <= installed


def test_the_bundle_is_small_the_same_every_time_and_holds_no_client() -> None:
    """What the server ships is a name, and the client half refuses to be one."""
    first, again = (build_fab_from_files(dict(BUNDLE))[0] for _ in range(2))
    assert first == again
    assert len(first) < 4096
    with pytest.raises(SystemExit):
        exec(BUNDLE["corrigible_round/client.py"])


def test_a_client_app_answers_through_flowers_own_call(fleet: Fleet) -> None:
    """`ClientApp(message, context)` reaches the device and returns its reply."""
    message = Message(RecordDict({"order": ConfigRecord({})}), 1000, "train")
    message.metadata.__dict__.update({"_message_id": "m", "_src_node_id": 1})
    context = Context(run_id=1, node_id=1000, node_config={}, state=RecordDict(), run_config={})
    assert client_app(fleet.owners[0].device)(message, context).error.reason == "refused"
