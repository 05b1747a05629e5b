"""How a device gets into a fleet: a link from the operator, the fleet's signed terms, the device's own keys in return.

The link pins the server's authority and the root of its releases by hash and holds a token that is good once. The
server learns two public keys and that the owner agreed to these terms; nothing else about the device.
"""

import base64
import binascii
import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from federation.control import Control
from federation.pki import public_bytes, signed_by
from federation.state import FleetState, Node
from store.errors import NotEligible, ReleaseRejected, UsageError
from store.records import canonical

CONTEXT = b"corrigible joins 1\0"
INVITATION_SECONDS = 7 * 86400.0
TOKEN_BYTES = 24
REQUEST_LIMIT = 8 * 1024  # bytes
FIELDS = {"token", "device", "node_key", "terms", "signature"}


@dataclass(frozen=True, slots=True)
class Link:
    """An operator's invitation as a device holds it."""

    url: str
    fingerprint: bytes  # SHA-256 over authority and root
    token: str

    def __str__(self) -> str:
        """The link as it is handed over."""
        pinned = base64.urlsafe_b64encode(self.fingerprint).decode().rstrip("=")
        return f"{self.url}/#{pinned}.{self.token}"

    @classmethod
    def parse(cls, text: str) -> "Link":
        """Read a link.

        Raises:
            UsageError: it is none.
        """
        parts = urlsplit(text)
        pinned, _, token = parts.fragment.partition(".")
        try:
            fingerprint = base64.urlsafe_b64decode(pinned + "=" * (-len(pinned) % 4))
        except (binascii.Error, ValueError):
            fingerprint = b""
        if parts.scheme != "https" or not parts.hostname or len(fingerprint) != 32 or not token:
            raise UsageError("This is no invitation to a fleet.", hint="Ask the operator for a new link.")
        return cls(f"https://{parts.netloc}", fingerprint, token)


def fingerprint(authority: bytes, root: bytes) -> bytes:
    """Return what a link pins."""
    return hashlib.sha256(len(authority).to_bytes(8, "big") + authority + root).digest()


def release_key(root: bytes) -> bytes:
    """Return the 32 bytes of the key that a root trusts with releases.

    Raises:
        ReleaseRejected: the root cannot be read or is not signed by itself.
    """
    try:
        metadata: Metadata[Root] = Metadata.from_bytes(root)
        metadata.verify_delegate("root", metadata)
        (key,) = metadata.signed.roles["targets"].keyids
        return bytes.fromhex(metadata.signed.keys[key].keyval["public"])
    except (RepositoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseRejected("the fleet's root cannot be read", code="format") from error


def invite(state: FleetState, name: str, *, seconds: float = INVITATION_SECONDS) -> str:
    """Return a token that enrolls one device under `name`, once, within `seconds`; only its hash is kept."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    state.put(_switch(token), json.dumps({"name": name, "expires": time.time() + seconds}))
    state.log("invited", name=name)
    return token


def ask(token: str, terms: bytes, node_key: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return a device's request to join, signed over the terms its owner agreed to."""
    body = {"token": token, "device": public_bytes(key).hex(), "node_key": node_key.decode().strip()}
    fields = {**body, "terms": hashlib.sha256(terms).hexdigest()}
    return canonical({**fields, "signature": key.sign(CONTEXT + canonical(fields)).hex()})


def admit(state: FleetState, control: Control, terms: bytes, data: bytes) -> Node:
    """Enroll the device that holds an invitation and agreed to these terms; its token is worth nothing afterwards.

    A device whose first answer was lost may send the same request again.

    Raises:
        NotEligible: code ``invitation``; the token is unknown, used or expired.
        UsageError: the request is malformed, for other terms, or not signed by the key it names.
    """
    fields = _read(data)
    if fields["terms"] != hashlib.sha256(terms).hexdigest():
        raise UsageError("the fleet's terms have changed", hint="Read them and join again.", code="terms")
    known = next((node for node in state.nodes() if node.device == fields["device"]), None)
    if known is not None and not known.revoked:
        return known
    invitation = json.loads(state.get(_switch(fields["token"])) or "{}")
    if known is not None or invitation.get("expires", 0.0) < time.time():
        raise NotEligible("the invitation is not valid", hint="Ask the operator for a new one.", code="invitation")
    node = Node(
        node_id=control.register(fields["node_key"].encode(), invitation["name"]),
        name=invitation["name"],
        device=fields["device"],
    )
    if state.take(_switch(fields["token"])) is None:
        raise NotEligible("the invitation is not valid", hint="Ask the operator for a new one.", code="invitation")
    state.enroll(node)
    state.log("enrolled", device=node.device, name=node.name, terms=fields["terms"])
    return node


def _read(data: bytes) -> dict[str, str]:
    """A request whose signature holds and whose keys are keys.

    Raises:
        UsageError: code ``request``.
    """
    try:
        value = json.loads(data) if len(data) <= REQUEST_LIMIT else None
        if not isinstance(value, dict) or set(value) != FIELDS or not all(type(one) is str for one in value.values()):
            raise ValueError
        signature = bytes.fromhex(value["signature"])
        body = {name: value[name] for name in FIELDS - {"signature"}}
        key = serialization.load_ssh_public_key(value["node_key"].encode())
        sound = isinstance(key, ec.EllipticCurvePublicKey)
        if not sound or not signed_by(bytes.fromhex(value["device"]), signature, CONTEXT + canonical(body)):
            raise ValueError
    except Exception as error:  # besides bad values, what a hostile key provokes in the parser
        raise UsageError("a request to join cannot be read", code="request") from error
    return body


def _switch(token: str) -> str:
    """Under which name the state keeps an invitation."""
    return f"invitation:{hashlib.sha256(token.encode()).hexdigest()}"
