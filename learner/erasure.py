"""The signed receipt of what was forgotten: counts, adapters and measurements, nothing of what was said.

Signed with Ed25519 under a key that only this store's owner has; whoever is shown two receipts with one public key
knows that they come from one store.
"""

import json
from time import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from learner.forget import Forgotten, as_body
from store.keys import Keys
from store.records import Erasure, canonical


def signed(done: Forgotten, keys: Keys) -> Erasure:
    """Return the receipt of what was done, at the present time."""
    now = time()
    body = canonical({"receipt": "corrigible erasure 1", "time": now, **as_body(done)})
    key = Ed25519PrivateKey.from_private_bytes(keys.sub("receipts"))
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Erasure(body=body.decode(), signature=key.sign(body).hex(), key=public.hex(), time=now)


def genuine(body: str, signature: str, key: str) -> bool:
    """Say whether `signature` is that of `body` under the public `key`.

    Raises:
        ValueError: `signature` or `key` is not hex, or not of its length.
    """
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    try:
        public.verify(bytes.fromhex(signature), body.encode())
    except InvalidSignature:
        return False
    json.loads(body)
    return True
