"""The operator's side of Flower's Control API on loopback: register nodes, start, watch and stop a run.

The bundle sent along is a name only: it imports our installed server app, and no device ever unpacks it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_files
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from store.errors import NetworkError, UsageError

BUNDLE = {
    "pyproject.toml": b"""\
[project]
name = "corrigible-round"
version = "0.1.0"
description = "Starts the installed federation server app."
license = "Apache-2.0"
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "corrigible"

[tool.flwr.app.components]
serverapp = "corrigible_round.server:app"
clientapp = "corrigible_round.client:app"

[tool.flwr.app.config]
plan = ""
""",
    "corrigible_round/__init__.py": b"",
    "corrigible_round/server.py": b"from federation.server_app import app\n",
    "corrigible_round/client.py": b"raise SystemExit('devices run their own installed client')\n",
}


class Control:
    """A connection to one SuperLink's Control API."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def register(self, public_key: bytes, name: str) -> int:
        """Admit the SuperNode with this OpenSSH public key and return its node id; the same one when admitted already.

        Raises:
            UsageError: it is no key on a NIST curve.
        """
        key = serialization.load_ssh_public_key(public_key)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise UsageError("a SuperNode's key is an EC key", code="node_key")
        raw = public_key_to_bytes(key)
        try:
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=raw, name=name)).node_id)
        except httpx.HTTPStatusError:  # admitted by an attempt that was cut off, or really refused
            for node in self._client.ListNodes(ListNodesRequest()).nodes_info:
                if node.public_key == raw and node.status != "unregistered":
                    return int(node.node_id)
            raise

    def registered(self) -> set[int]:
        """Return the ids of the SuperNodes that may connect."""
        nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {int(node.node_id) for node in nodes if node.status != "unregistered"}

    def unregister(self, node_id: int) -> None:
        """Shut the SuperNode with this id out."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def online(self) -> set[int]:
        """Return the ids of the SuperNodes that are connected now."""
        nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {int(node.node_id) for node in nodes if node.status == "online"}

    def start(self, plan: Path, files: Mapping[str, bytes] = BUNDLE) -> int:
        """Start a run of the server app with the plan in this file; return the run's id.

        Args:
            plan: what the run shall do.
            files: the bundle that names the server app.
        """
        bundle, _ = build_fab_from_files(dict(files))
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto({"plan": str(plan)}))
        response = self._client.StartRun(request)
        if not response.HasField("run_id"):
            raise NetworkError("the SuperLink did not start the run")
        return int(response.run_id)

    def state(self, run_id: int) -> str:
        """Return the run's state as Flower words it: ``pending``, ``starting``, ``running`` or ``finished:…``."""
        run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        return ":".join(part for part in (run.status.status, run.status.sub_status) if part)

    def stop(self, run_id: int) -> None:
        """Ask the SuperLink to stop the run."""
        self._client.StopRun(StopRunRequest(run_id=run_id))


@contextmanager
def control(address: str, authority: Path) -> Iterator[Control]:
    """Connect to the Control API at ``host:port`` under the given authority.

    Raises:
        NetworkError: the SuperLink does not answer or refuses.
    """
    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=authority.read_bytes(),
        interceptors=[CliClientHttpInterceptor(), RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield Control(client)
    except httpx.HTTPError as error:
        raise NetworkError("the SuperLink's control interface failed", hint="Look at its log.") from error
    finally:
        client.close()
