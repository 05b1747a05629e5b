"""The two messages of a round: an order signed by the fleet, an answer signed by the device.

Flower carries them as opaque bytes and is trusted with nothing: not with who sent a reply, not with what a run may
ask for. Encoding and signatures only; what a device does with an order is in `federation.device`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.pki import signed_by
from federation.spec import RoundSpec
from federation.update import UpdateRefused
from store.errors import ReleaseRejected, UsageError
from store.records import canonical, digest

ORDER_CONTEXT = b"corrigible order 1\0"
REPLY_CONTEXT = b"corrigible reply 1\0"
ORDER_LIMIT = 16 * 1024  # bytes

Word = Literal["consent", "base", "spec", "budget", "spent", "late", "release", "busy"]
DECLINES: tuple[Word, ...] = ("consent", "base", "spec", "budget", "spent", "late", "release", "busy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one device is asked for in one round."""

    fleet: str
    run: str
    round: int
    nonce: str  # 32 hex digits, fresh for every device and round
    device: str  # hex of the device's public key
    release: str  # id of the release to start from
    deadline: float  # seconds since the epoch
    spec: RoundSpec


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """An order's bytes and the fleet's signature over them."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device answers: an update's bytes, or no bytes and the word why not."""

    decline: str  # empty for an update
    payload: bytes
    signature: bytes


def sign_order(order: Order, key: Ed25519PrivateKey) -> SignedOrder:
    """Sign an order with the fleet's release key."""
    body = canonical(asdict(order))
    return SignedOrder(body, key.sign(ORDER_CONTEXT + body))


def open_order(signed: SignedOrder, release_key: bytes) -> Order:
    """Check the fleet's signature, then read the order.

    Raises:
        ReleaseRejected: the signature is not the fleet's, or the order cannot be read.
    """
    if len(signed.body) > ORDER_LIMIT or not signed_by(release_key, signed.signature, ORDER_CONTEXT + signed.body):
        raise ReleaseRejected("an order without the fleet's signature was refused", code="signature")
    try:
        value: dict[str, Any] = json.loads(signed.body)
        order = Order(**{**value, "spec": RoundSpec.parse(value["spec"])})
        sound = type(order.round) is int and math.isfinite(order.deadline)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise ReleaseRejected("a signed order could not be read", code="format") from error
    if not sound:
        raise ReleaseRejected("a signed order could not be read", code="format")
    return order


def sign_reply(order: Order, payload: bytes, key: Ed25519PrivateKey, *, decline: str = "") -> Reply:
    """Sign an answer to `order` with the device's key, end to end."""
    return Reply(decline, payload, key.sign(_reply_bytes(order, payload, decline)))


def check_reply(reply: Reply, order: Order) -> None:
    """Check that the device named in the order signed this very answer to this very order.

    Raises:
        UpdateRefused: reason ``signature`` or ``format``.
    """
    if reply.decline and (reply.payload or reply.decline not in DECLINES):
        raise UpdateRefused("format")
    if not signed_by(bytes.fromhex(order.device), reply.signature, _reply_bytes(order, reply.payload, reply.decline)):
        raise UpdateRefused("signature")


def reply_fields(reply: Reply) -> dict[str, str | bytes]:
    """Return the fields that Flower carries."""
    return {"decline": reply.decline, "payload": reply.payload, "signature": reply.signature}


def parse_reply(fields: Mapping[str, object], size: int) -> Reply:
    """Rebuild a reply from what Flower delivered; `size` is the only length a payload may have.

    Raises:
        UpdateRefused: reason ``format`` or ``size``.
    """
    decline, payload, signature = (fields.get(name) for name in ("decline", "payload", "signature"))
    if (
        set(fields) != {"decline", "payload", "signature"}
        or not isinstance(decline, str)
        or not isinstance(payload, bytes)
        or not isinstance(signature, bytes)
    ):
        raise UpdateRefused("format")
    if len(payload) not in (0, size) or (not payload and not decline):
        raise UpdateRefused("size")
    return Reply(decline, payload, signature)


def _reply_bytes(order: Order, payload: bytes, decline: str) -> bytes:
    """What a device signs: run, round, nonce, its word and the hash of the bytes."""
    bound = [order.fleet, order.run, order.round, order.nonce, decline, digest(payload)]
    return REPLY_CONTEXT + canonical(bound)
