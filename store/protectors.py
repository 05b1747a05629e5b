"""The ladder of places that can guard the data key, strongest first.

OS keyring, systemd credential, passphrase (Argon2id), and, only when the owner insists, a plain key file.
Each supplies a 32-byte wrapping key; the data key itself never leaves `store.keys`.
"""

import base64
import contextlib
import os
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from store.errors import IntegrityError, Locked, UsageError
from store.files import shred, write_atomic
from store.paths import NAME, Home
from store.secret import derive

Backend = Literal["keyring", "systemd", "passphrase", "file"]
WRAPPING_BYTES = 32
SALT_BYTES = 16
CREDENTIAL = "corrigible-key"
SMALL_DEVICE = 2**30  # bytes of memory below which the passphrase is stretched at the floor


class Protector(Protocol):
    """Supplies the wrapping key; `create` once, `recover` at every unlock."""

    @property
    def backend(self) -> Backend:
        """Name recorded in key.json."""

    @property
    def secret(self) -> str:
        """What the owner calls it, for messages."""

    @property
    def hint(self) -> str:
        """What to do when it does not fit."""

    @property
    def warning(self) -> str:
        """Standing warning, empty when there is none."""

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:
        """A wrapping key and the public parameters that find it again."""

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:
        """The wrapping key again."""

    def forget(self, home: Home, params: dict[str, Any]) -> None:
        """Destroy the wrapping key where this protector keeps one."""


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Argon2id cost (RFC 9106): memory in KiB, passes, lanes."""

    memory: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    @classmethod
    def small(cls) -> "Argon2Cost":
        """The floor, for small devices: 19 MiB, 2 passes, 1 lane."""
        return cls(19 * 1024, 2, 1)

    @classmethod
    def here(cls) -> "Argon2Cost":
        """What this machine can bear: the usual cost, or the floor where there is less than 1 GiB of memory."""
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):  # a system that does not say
            return cls()
        return cls.small() if memory < SMALL_DEVICE else cls()

    def checked(self) -> "Argon2Cost":
        """Itself, when between the floor and 2 GiB. Raises UsageError otherwise."""
        floor = Argon2Cost.small()
        if not (floor.memory <= self.memory <= 2**21 and floor.passes <= self.passes <= 64 and 1 <= self.lanes <= 64):
            raise UsageError(
                "The passphrase cost is outside the allowed range.",
                hint=f"At least {floor.memory} KiB, {floor.passes} passes, {floor.lanes} lane.",
                code="bad_cost",
            )
        return self


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A secret the owner remembers, stretched by Argon2id."""

    phrase: str = field(repr=False)
    cost: Argon2Cost = field(default_factory=Argon2Cost)
    backend: Backend = "passphrase"
    secret: str = "passphrase"
    hint: str = "Try again; nothing was changed."
    warning: str = ""

    def stretch(self) -> tuple[bytes, dict[str, Any]]:
        """A key under a fresh salt, and the parameters to stretch `again`. Raises UsageError when empty."""
        if not self.phrase.strip():
            raise UsageError(
                "The passphrase is empty.", hint="Choose one of at least four words.", code="empty_passphrase"
            )
        salt = base64.b64encode(os.urandom(SALT_BYTES)).decode()
        params = {"kdf": "argon2id", "salt": salt, **asdict(self.cost.checked())}
        return self.again(params), params

    def again(self, params: dict[str, Any]) -> bytes:
        """The key under recorded salt and cost. Raises IntegrityError when they make no sense."""
        try:
            cost = Argon2Cost(params["memory"], params["passes"], params["lanes"]).checked()
            salt = base64.b64decode(params["salt"])
        except (UsageError, KeyError, ValueError, TypeError):
            raise IntegrityError("The recorded passphrase parameters are damaged.", code="key_file_damaged") from None
        kdf = Argon2id(
            salt=salt, length=WRAPPING_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory
        )
        return kdf.derive(unicodedata.normalize("NFC", self.phrase).encode())

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:  # noqa: ARG002 - the protocol's signature
        """As `stretch`."""
        return self.stretch()

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:  # noqa: ARG002
        """As `again`."""
        return self.again(params)

    def forget(self, home: Home, params: dict[str, Any]) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class OsKeyring:
    """The desktop's keyring (Secret Service, Keychain, Credential Manager)."""

    backend: Backend = "keyring"
    secret: str = "keyring's secret"
    hint: str = "The keyring may belong to another user or machine; restore a backup made with a passphrase."
    warning: str = ""

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:  # noqa: ARG002
        """Put a fresh wrapping key into the keyring. Raises UsageError when there is no real one."""
        entry, wrapping = os.urandom(8).hex(), os.urandom(WRAPPING_BYTES)
        store_secret(entry, base64.b64encode(wrapping).decode())
        return wrapping, {"entry": entry}

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:  # noqa: ARG002
        """Fetch the wrapping key. Raises Locked when the keyring does not give it."""
        value = fetch_secret(params["entry"])
        if value is None:
            raise Locked(
                "The OS keyring does not hand out this store's key.", hint="Unlock the keyring (log in), then repeat."
            )
        return base64.b64decode(value)

    def forget(self, home: Home, params: dict[str, Any]) -> None:  # noqa: ARG002
        """Delete the entry and the anchor kept under its name."""
        forget_secret(params["entry"])
        forget_secret(ring_entry(params["entry"]))


@dataclass(frozen=True, slots=True)
class SystemdCredential:
    """A credential that systemd decrypts for the service (LoadCredentialEncrypted=, TPM-bound where there is one)."""

    name: str = CREDENTIAL
    backend: Backend = "systemd"
    secret: str = "systemd credential"
    hint: str = "Start the service with the credential it was set up with."
    warning: str = ""

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:
        """Use the credential that is already there. Raises UsageError when it is missing or too short."""
        params = {"name": self.name, "salt": base64.b64encode(os.urandom(SALT_BYTES)).decode()}
        try:
            return self.recover(home, params), params
        except Locked:
            raise UsageError(
                f"systemd did not hand over the credential {self.name}.",
                hint=f"head -c 32 /dev/urandom | systemd-creds encrypt --name={self.name} - FILE, then "
                f"LoadCredentialEncrypted={self.name}:FILE in the unit.",
                code="no_credential",
            ) from None

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:
        """Derive the wrapping key from the credential. Raises Locked when it is not there."""
        secret = _credential(home, params["name"])
        if len(secret) < WRAPPING_BYTES:
            raise Locked(f"The systemd credential {params['name']} is missing or too short.", hint=self.hint)
        return derive(secret, "corrigible wrapping", base64.b64decode(params["salt"]))

    def there(self, home: Home) -> bool:
        """Whether systemd handed this process the credential."""
        return len(_credential(home, self.name)) >= WRAPPING_BYTES

    def forget(self, home: Home, params: dict[str, Any]) -> None:
        """The credential is systemd's to keep."""


def _credential(home: Home, name: str) -> bytes:
    """What systemd put into the credential called `name`; nothing when it did not."""
    path = home.credentials / name if home.credentials and name else None
    return path.read_bytes() if path and path.is_file() else b""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A wrapping key in a 0600 file beside the store: protects against nobody who can read the disk."""

    backend: Backend = "file"
    secret: str = "key file"
    hint: str = "Put back the insecure-*.key that belongs to this store."
    warning: str = "The key lies unprotected beside the store: whoever reads the disk reads everything."

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:
        """Write a fresh wrapping key into a file of its own."""
        entry, wrapping = os.urandom(8).hex(), os.urandom(WRAPPING_BYTES)
        write_atomic(home.insecure_key(entry), [wrapping.hex().encode() + b"\n"])
        return wrapping, {"entry": entry}

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:
        """Read the wrapping key. Raises Locked when the file is gone, IntegrityError when damaged."""
        try:
            wrapping = bytes.fromhex(home.insecure_key(params["entry"]).read_text().strip())
        except FileNotFoundError:
            raise Locked("The key file is missing.", hint=self.hint) from None
        except (ValueError, OSError):
            wrapping = b""
        if len(wrapping) != WRAPPING_BYTES:
            raise IntegrityError("The key file is damaged.", hint=self.hint, code="key_file_damaged")
        return wrapping

    def forget(self, home: Home, params: dict[str, Any]) -> None:
        """Shred the file."""
        shred(home.insecure_key(params["entry"]))


def protector_for(backend: str, params: dict[str, Any], passphrase: Callable[[], str] | None) -> Protector:
    """The protector that key.json names; the passphrase is asked for only at `recover`."""
    if backend == "passphrase":
        return _AskedPassphrase(passphrase)
    found: dict[str, Protector] = {
        "keyring": OsKeyring(),
        "systemd": SystemdCredential(params.get("name", "")),
        "file": KeyFile(),
    }
    if backend not in found:
        raise IntegrityError(
            "key.json names a protection this program does not know.", hint="Update the program.", code="newer_schema"
        )
    return found[backend]


@dataclass(frozen=True, slots=True)
class _AskedPassphrase:
    """A passphrase not yet asked for."""

    ask: Callable[[], str] | None
    backend: Backend = "passphrase"
    secret: str = "passphrase"
    hint: str = "Try again; nothing was changed."
    warning: str = ""

    def create(self, home: Home) -> tuple[bytes, dict[str, Any]]:
        return Passphrase(self._phrase()).create(home)

    def recover(self, home: Home, params: dict[str, Any]) -> bytes:
        return Passphrase(self._phrase()).recover(home, params)

    def forget(self, home: Home, params: dict[str, Any]) -> None:
        """Nothing is kept."""

    def _phrase(self) -> str:
        if self.ask is None:
            raise Locked("This store is locked by a passphrase.", hint="Give it with --passphrase-file or when asked.")
        return self.ask()


def ring_entry(entry: str) -> str:
    """The name in the keyring of the second anchor of the store whose key is under `entry`."""
    return f"{entry}-anchor"


def keyring_usable() -> bool:
    """Whether the machine has a real keyring (never a plain-text stand-in)."""
    try:
        import keyring

        return float(keyring.get_keyring().priority) >= 1 and "alt" not in type(keyring.get_keyring()).__module__
    except Exception:  # a broken desktop bus raises whatever its library likes
        return False


def store_secret(entry: str, value: str) -> None:
    """Put `value` under `entry` of our service. Raises UsageError when there is no real keyring."""
    if keyring_usable():
        import keyring
        from keyring.errors import KeyringError

        with contextlib.suppress(KeyringError):
            keyring.set_password(NAME, entry, value)
            if keyring.get_password(NAME, entry) == value:
                return
    raise UsageError(
        "This machine has no usable OS keyring.",
        hint="Protect the store with a passphrase: `corrigible init --key passphrase`.",
        code="no_keyring",
    )


def fetch_secret(entry: str) -> str | None:
    """The value under `entry`, or None when the keyring does not hand it out."""
    if not keyring_usable():
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        value: str | None = keyring.get_password(NAME, entry)
    except KeyringError:
        return None
    return value


def forget_secret(entry: str) -> None:
    """Remove `entry`; missing is fine."""
    if not keyring_usable():
        return
    import keyring
    from keyring.errors import KeyringError

    with contextlib.suppress(KeyringError):
        keyring.delete_password(NAME, entry)
