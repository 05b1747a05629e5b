"""What a fleet is and asks: the operator's settings, and the signed terms that a person reads on joining.

Everything here is public. What a device says about itself and its limits is not taken from the terms.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import adapter
from federation.pki import public_bytes, signed_by
from federation.plan import Plan, ServerFolder
from federation.release import ADJACENCY, TRUST, fleet_identity
from federation.spec import RoundSpec
from federation.update import HEADER
from store.errors import IntegrityError, NotInitialised, ReleaseRejected, UsageError
from store.files import write_atomic
from store.records import canonical

CONTEXT = b"corrigible terms 1\0"
TERMS_LIMIT = 32 * 1024  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """The operator's settings; a file in the server's folder."""

    operator: str  # who runs the fleet, as devices' owners read it
    contact: str = ""
    host: str = "localhost"  # name or address that devices use
    bind: str = "127.0.0.1"  # address the front listens on
    port: int = 8443  # of the front
    public_port: int = 0  # that devices use, where something else stands before the front; 0: the same
    console: int = 8444  # of the operator's page and metrics, on loopback
    superlink: int = 8445  # of Flower, on loopback
    interval: float = 86400.0  # seconds between rounds
    rollout: int = 100  # percent of devices that a new release reaches at first
    rate: float = 50.0  # requests a second that one device's key may make
    burst: int = 100

    @property
    def url(self) -> str:
        """Where devices find the fleet."""
        return f"https://{self.host}:{self.public_port or self.port}"

    def write(self, path: Path) -> None:
        """Save as JSON.

        Raises:
            UsageError: a setting is out of range.
        """
        ports = {self.port, self.console, self.superlink}
        if len(ports) < 3 or not all(0 < port < 65536 for port in ports):
            raise UsageError("the fleet needs three different ports between 1 and 65535", code="port")
        if not 0 <= self.rollout <= 100 or self.interval <= 0 or self.rate <= 0 or self.burst < 1:
            raise UsageError("a setting of the fleet is out of range", code="charter")
        write_atomic(path, [json.dumps(asdict(self), indent=1).encode()])

    @classmethod
    def read(cls, path: Path) -> "Charter":
        """Load what `write` saved.

        Raises:
            NotInitialised: there is no fleet server here.
            IntegrityError: the file is damaged.
        """
        if not path.exists():
            raise NotInitialised("there is no fleet server here", hint="`corrigible fleet init` makes one.")
        try:
            return cls(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{path.name} is damaged", hint="Restore it from a backup.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the fleet asks, as its operator signed it."""

    operator: str
    contact: str
    url: str
    fleet: str
    base: str  # tagged hash of the base model
    adjacency: str
    trust: str
    delta: float
    quorum: int  # fewest devices a release rests on
    interval: float  # seconds between rounds
    rule: str  # how updates become one
    bytes_up: int  # of one update, whatever the data
    spec: RoundSpec

    @property
    def id(self) -> bytes:
        """Canonical form, to be signed by both sides."""
        return canonical(asdict(self))


def terms(charter: Charter, plan: Plan, release_key: bytes) -> Terms:
    """Return the terms of this fleet."""
    count = sum(outputs * rank for _, outputs, rank in adapter.layout(plan.geometry, plan.spec))
    return Terms(
        operator=charter.operator,
        contact=charter.contact,
        url=charter.url,
        fleet=fleet_identity(release_key),
        base=plan.base,
        adjacency=ADJACENCY,
        trust=TRUST,
        delta=plan.delta,
        quorum=plan.pace.quorum,
        interval=charter.interval,
        rule=plan.rule,
        bytes_up=HEADER.size + count * plan.spec.bits // 8,
        spec=plan.spec,
    )


def read_terms(folder: ServerFolder, key: Ed25519PrivateKey) -> bytes:
    """Return the signed terms of the server in `folder` as they travel."""
    mine = terms(Charter.read(folder.charter), Plan.read(folder.plan), public_bytes(key))
    return canonical({"terms": asdict(mine), "signature": key.sign(CONTEXT + mine.id).hex()})


def open_terms(data: bytes, release_key: bytes) -> Terms:
    """Check the fleet's signature, then read its terms.

    Raises:
        ReleaseRejected: they are not signed by this fleet, or cannot be read.
    """
    if len(data) > TERMS_LIMIT:
        raise ReleaseRejected("the fleet's terms are too long", code="size")
    try:
        value: dict[str, Any] = json.loads(data)
        body, signature = value["terms"], bytes.fromhex(value["signature"])
        if not signed_by(release_key, signature, CONTEXT + canonical(body)):
            raise ReleaseRejected("the terms are not signed by this fleet", code="signature")
        return Terms(**{**body, "spec": RoundSpec.parse(_mapping(body["spec"]))})
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise ReleaseRejected("the fleet's terms cannot be read", code="format") from error


def _mapping(value: object) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, dict):
        raise TypeError
    return value
