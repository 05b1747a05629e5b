"""The operator's list of enrolled devices: one vote per key. A JSON file, replaced as a whole."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from store.errors import IntegrityError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One enrolled device: Flower's id for its SuperNode, and the key that signs its answers."""

    node_id: int
    name: str
    device: str  # hex of the device's Ed25519 public key
    revoked: bool = False


def read(path: Path) -> list[Node]:
    """Return all enrolled devices, an empty list when there is no file.

    Raises:
        IntegrityError: the file cannot be read or names a key or node twice.
    """
    if not path.exists():
        return []
    try:
        nodes = [Node(**entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{path.name} is damaged") from error
    if len({node.device for node in nodes}) < len(nodes) or len({node.node_id for node in nodes}) < len(nodes):
        raise IntegrityError(f"{path.name} names a device twice")
    return nodes


def enroll(path: Path, node: Node) -> None:
    """Add one device.

    Raises:
        UsageError: its key or its node is enrolled already, or the key is not 64 hex digits.
    """
    nodes = read(path)
    if len(node.device) != 64 or not set(node.device) <= set("0123456789abcdef"):
        raise UsageError("a device key has 64 hex digits", code="device_key")
    if any(node.device == other.device or node.node_id == other.node_id for other in nodes):
        raise UsageError(f"device {node.name} is enrolled already", code="enrolled")
    _write(path, [*nodes, node])


def admitted(path: Path) -> dict[int, str]:
    """Return node id -> device key of all devices that may vote."""
    return {node.node_id: node.device for node in read(path) if not node.revoked}


def _write(path: Path, nodes: Sequence[Node]) -> None:
    """Replace the file in one step."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps([asdict(node) for node in nodes], indent=1))
    draft.replace(path)
