"""Flower's three processes as we start them: on loopback, with TLS and node keys, tasks to our own executors only."""

from pathlib import Path

from federation.membership import Membership
from federation.plan import ServerFolder
from federation.processes import Child, flower


def superlink(server: ServerFolder, port: int, scratch: Path) -> Child:
    """Start the SuperLink on loopback; only nodes with registered keys may connect, and it executes nothing itself."""
    arguments = {
        "ssl-ca-certfile": server.authority,
        "ssl-certfile": server.root / "server.crt",
        "ssl-keyfile": server.root / "server.key",
        "enable-supernode-auth": True,
        "isolation": "process",
        "superexec-auth-secret-file": server.secret,
        "disable-runtime-dependency-installation": True,
        "host": "127.0.0.1",
        "port": port,
        "database": server.database,
    }
    return flower("superlink", "flower-superlink", arguments, scratch)


def superexec(server: ServerFolder, port: int, scratch: Path) -> Child:
    """Start the executor of our server app; it shows the SuperLink its secret for every task."""
    arguments = {
        "root-certificates": server.authority,
        "runtime-api-address": f"127.0.0.1:{port}",
        "superexec-auth-secret-file": server.secret,
    }
    return flower("superexec", "flower-superexec", arguments, scratch)


def supernode(
    name: str,
    place: Membership,
    *,
    address: str,
    port: int,
    authority: Path,
    secret: Path,
    scratch: Path,
    door: int = 0,
) -> Child:
    """Start a device's SuperNode; its runtime interface is on loopback at `port` and asks for the secret.

    Args:
        name: of its folder and log in `scratch`.
        place: whose node key it shows.
        address: ``host:port`` of the fleet's front, or of the SuperLink itself on a desk.
        port: of the runtime interface.
        authority: whose certificates it trusts.
        secret: shared with our task runner.
        scratch: where its home and log lie.
        door: loopback port of the proxy that counts what it sends; 0 on a desk, where nothing leaves the machine.
    """
    arguments = {
        "root-certificates": authority,
        "superlink": address,
        "auth-supernode-private-key": place.node_key,
        "host": "127.0.0.1",
        "port": port,
        "isolation": "process",
        "superexec-auth-secret-file": secret,
    }
    return flower(name, "flower-supernode", arguments, scratch, door=door)
