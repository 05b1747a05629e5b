"""The data key, its subkeys, and key.json, which wraps it.

A random 32-byte data key encrypts everything. A protector (`store.protectors`) supplies the key that wraps
it; changing the protector re-wraps and never re-encrypts. key.json also carries a key-check value, so that a
wrong key and a damaged store are told apart, and a checksum, so that a damaged key.json is not mistaken for
a wrong passphrase. key.json is replaced by one rename: it is the commit point of creation and rotation.
"""

import base64
import contextlib
import ctypes
import hashlib
import hmac
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store.errors import IntegrityError, NotInitialised, UsageError, WrongKey
from store.files import write_atomic
from store.paths import Home
from store.protectors import Argon2Cost, Backend, Protector, protector_for
from store.records import canonical
from store.secret import KEY_BYTES, wipe

NONCE_BYTES = 12
VERSION = 1

Subkey = Literal["database", "artefacts", "ledger", "exports", "receipts", "check"]


class Keys:
    """The data key in memory, in one place that `wipe` clears."""

    def __init__(self, raw: bytearray) -> None:
        if len(raw) != KEY_BYTES:
            raise WrongKey(f"A data key has {KEY_BYTES} bytes, not {len(raw)}.")
        self._raw = raw

    @classmethod
    def generate(cls) -> "Keys":
        """A fresh random data key."""
        return cls(bytearray(os.urandom(KEY_BYTES)))

    @classmethod
    def from_bytes(cls, raw: bytes | bytearray) -> "Keys":
        """Rebuild from `export`, e.g. in a child process that got it over a pipe."""
        return cls(bytearray(raw))

    def export(self) -> bytes:
        """The raw data key, to hand to a child process over a pipe; never to a file or an argument."""
        self._alive()
        return bytes(self._raw)

    def sub(self, purpose: Subkey) -> bytes:
        """The 32-byte subkey for `purpose`, for short use; see `secret`."""
        return bytes(self.secret(purpose))

    def secret(self, purpose: Subkey) -> bytearray:
        """The 32-byte subkey for `purpose` (HKDF-SHA256, RFC 5869), for its user to wipe.

        Raises:
            Locked: the key was wiped.
        """
        self._alive()
        made = bytearray(KEY_BYTES)
        HKDF(SHA256(), KEY_BYTES, None, f"corrigible {purpose}".encode()).derive_into(self._raw, made)
        return made

    def check(self) -> str:
        """The key-check value: says whether a key is the right one, and nothing else about it."""
        return self.sub("check").hex()[:32]

    def wipe(self) -> None:
        """Overwrite the key; every later use raises `Locked`."""
        wipe(self._raw)

    def _alive(self) -> None:
        from store.errors import Locked

        if not any(self._raw):
            raise Locked("The store's key was wiped from memory.", hint="Unlock the store again.")

    def __repr__(self) -> str:
        return "Keys(hidden)"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What key.json says. Everything but `wrapped` is public."""

    generation: int
    backend: Backend
    params: dict[str, Any]  # the protector's own public parameters (salt, costs, entry name)
    check: str
    wrapped: str  # base64 of nonce and AES-256-GCM ciphertext of the data key

    def public(self) -> dict[str, Any]:
        """The part bound to the wrapped key as associated data."""
        return {
            "version": VERSION,
            "generation": self.generation,
            "backend": self.backend,
            "params": self.params,
            "check": self.check,
        }


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How the data key is protected, and the standing warning when that is weak."""

    backend: Backend
    generation: int
    warning: str
    cost: Argon2Cost | None = None  # of the passphrase, where there is one


def create_keys(home: Home, protector: Protector, *, keys: Keys | None = None, generation: int = 1) -> Keys:
    """Wrap `keys` (fresh ones when omitted) with `protector` and write key.json.

    Raises:
        UsageError: the protector cannot be used here (no keyring, empty passphrase, ...).
    """
    forbid_core_dumps()
    keys = keys or Keys.generate()
    write_key_record(home, wrap(keys, protector, home, generation))
    return keys


def unlock(home: Home, *, passphrase: Callable[[], str] | None = None) -> Keys:
    """Unwrap the data key as key.json says.

    Args:
        home: where key.json lies.
        passphrase: asked only when the store is protected by one.

    Raises:
        NotInitialised: there is no key.json.
        Locked: a passphrase is needed and `passphrase` is missing, or the keyring is locked.
        WrongKey: the passphrase or stored secret does not fit.
        IntegrityError: key.json is damaged.
    """
    forbid_core_dumps()
    record = read_key_record(home)
    protector = protector_for(record.backend, record.params, passphrase)
    return unwrap(record, protector, home)


def wrap(keys: Keys, protector: Protector, home: Home, generation: int) -> KeyRecord:
    """Wrap `keys` under a fresh wrapping key of `protector`."""
    wrapping, params = protector.create(home)
    bare = KeyRecord(generation, protector.backend, params, keys.check(), "")
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(wrapping).encrypt(nonce, keys.export(), canonical(bare.public()))
    return KeyRecord(generation, protector.backend, params, bare.check, base64.b64encode(sealed).decode())


def unwrap(record: KeyRecord, protector: Protector, home: Home) -> Keys:
    """The data key inside `record`. Raises WrongKey when the protector's secret does not fit."""
    wrapping = protector.recover(home, record.params)
    sealed, raw = base64.b64decode(record.wrapped), bytearray(KEY_BYTES)
    try:
        AESGCM(wrapping).decrypt_into(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], canonical(record.public()), raw)
    except InvalidTag:
        raise WrongKey(f"The {protector.secret} does not open this store.", hint=protector.hint) from None
    return Keys(raw)


def write_key_record(home: Home, record: KeyRecord) -> None:
    """Replace key.json in one rename."""
    body = record.public() | {"wrapped": record.wrapped}
    body["checksum"] = _checksum(body)
    write_atomic(home.key_file, [json.dumps(body, indent=1).encode() + b"\n"])


def read_key_record(home: Home) -> KeyRecord:
    """Read key.json.

    Raises:
        NotInitialised: it is not there.
        IntegrityError: it is damaged (``key_file_damaged``) or from a newer program (``newer_schema``).
    """
    try:
        raw = home.key_file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotInitialised("There is no store here yet.", hint="Run `corrigible init` first.") from None
    except OSError:
        raise UsageError("key.json cannot be read.", hint="Check its owner and mode.", code="unreadable") from None
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        body = json.loads(raw)
        if body["version"] > VERSION:
            raise IntegrityError(
                "This store was made by a newer version of the program.", hint="Update it.", code="newer_schema"
            )
        if hmac.compare_digest(body.pop("checksum"), _checksum(body)):
            return KeyRecord(body["generation"], body["backend"], body["params"], body["check"], body["wrapped"])
    raise IntegrityError(
        "key.json is damaged.", hint="Put back the copy from a backup.", code="key_file_damaged"
    ) from None


def check_keys(record: KeyRecord, keys: Keys) -> None:
    """Raise WrongKey unless `keys` is the data key of `record`."""
    if not hmac.compare_digest(record.check, keys.check()):
        raise WrongKey("The key does not belong to this store.", hint="Unlock the store with its own key.")


def key_status(home: Home) -> KeyStatus:
    """How the key of this home is protected; asks for no secret."""
    record = read_key_record(home)
    protector = protector_for(record.backend, record.params, None)
    cost = None
    if record.backend == "passphrase":
        cost = Argon2Cost(record.params["memory"], record.params["passes"], record.params["lanes"])
    return KeyStatus(record.backend, record.generation, protector.warning, cost)


def forbid_core_dumps() -> None:
    """Keep the key out of core files and away from debuggers of the same user, where the platform can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        prctl_set_dumpable = 4
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(prctl_set_dumpable, 0, 0, 0, 0)


def core_dumps_off() -> bool:
    """Whether a crash of this process leaves no core file."""
    try:
        import resource
    except ImportError:  # a platform without core files
        return True
    return resource.getrlimit(resource.RLIMIT_CORE)[0] == 0


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()[:32]
