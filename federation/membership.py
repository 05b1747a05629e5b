"""What a device keeps about the fleet it has joined: pinned key, own keys, limits, newest release seen.

A folder of 0600 files on the device. Consent is a record in the store, not here.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import pki
from federation.release import Manifest, Release, fleet_identity, verify
from federation.spec import Limits
from store.errors import IntegrityError, NotInitialised, UsageError


@dataclass(frozen=True, slots=True)
class Membership:
    """One device's place in one fleet."""

    folder: Path
    release_key: bytes  # 32 bytes, pinned on joining
    base: str  # tagged hash of the device's base GGUF
    limits: Limits
    url: str = ""  # where the fleet's server is; empty when there is none to call

    @property
    def fleet(self) -> str:
        """The fleet's identity; also the destination that consent and egress name."""
        return fleet_identity(self.release_key)

    @property
    def node_key(self) -> Path:
        """The SuperNode's key; its public half lies beside it."""
        return self.folder / "node.key"

    @property
    def authority(self) -> Path:
        """Certificate of the fleet's own authority, pinned on joining."""
        return self.folder / "ca.crt"

    @property
    def metadata(self) -> Path:
        """What this device knows of the list of releases."""
        return self.folder / "tuf"

    @property
    def terms(self) -> Path:
        """The fleet's signed terms that the owner agreed to."""
        return self.folder / "terms.json"

    def device_id(self) -> str:
        """Return the random number by which this device takes its turn in a rollout; it is never sent."""
        return (self.folder / "device.id").read_text()

    def pinned_root(self) -> bytes:
        """Return the root of the releases that came with the invitation.

        Raises:
            NotInitialised: this device joined without one.
        """
        path = self.folder / "root.json"
        if not path.exists():
            raise NotInitialised("this device knows no list of releases", hint="Join the fleet by its link.")
        return path.read_bytes()

    def signing_key(self) -> Ed25519PrivateKey:
        """Return the key that signs this device's answers."""
        return pki.load_signing_key(self.folder / "device.key")

    def newest(self) -> Manifest | None:
        """Return the manifest of the newest release seen, None before the first.

        Raises:
            IntegrityError: the remembered manifest was changed.
        """
        found = self.remembered()
        return found.manifest if found else None

    def remembered(self) -> Release | None:
        """Return the newest release seen, None before the first.

        Raises:
            ReleaseRejected: what is remembered was changed.
        """
        path = self.folder / "newest.json"
        if not path.exists():
            return None
        adapter = (self.folder / "newest.gguf").read_bytes()
        return verify(path.read_bytes(), adapter, release_key=self.release_key, base=self.base)

    def accept(self, envelope: bytes, adapter: bytes) -> Release:
        """Verify a release against everything this device knows and remember it as the newest seen.

        Raises:
            ReleaseRejected: see `federation.release.verify`.
        """
        release = verify(envelope, adapter, release_key=self.release_key, base=self.base, current=self.newest())
        for name, data in (("newest.gguf", release.adapter), ("newest.json", release.envelope)):
            draft = self.folder / f"{name}.draft"
            draft.write_bytes(data)
            draft.replace(self.folder / name)
        return release


def join(
    folder: Path,
    *,
    release_key: bytes,
    base: str,
    limits: Limits | None = None,
    url: str = "",
    authority: bytes = b"",
    root: bytes = b"",
) -> Membership:
    """Make this device's keys for a fleet and pin the fleet's release key.

    Args:
        folder: where the membership is kept.
        release_key: the fleet's 32 public bytes.
        base: tagged hash of the device's base model.
        limits: the device's own.
        url: where the fleet's server is.
        authority: PEM of the fleet's certificate authority.
        root: the first root of the fleet's releases.

    Raises:
        UsageError: the folder holds a membership already, or the key has not 32 bytes.
    """
    if len(release_key) != 32:
        raise UsageError("a fleet's release key has 32 bytes", code="release_key")
    membership = Membership(folder, release_key, base, limits or Limits(), url)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki.create_node_key(membership.node_key)
    pki.create_signing_key(folder / "device.key")
    pki.write_private(folder / "device.id", secrets.token_hex(16).encode())
    for name, data in (("ca.crt", authority), ("root.json", root)):
        if data:
            pki.write_private(folder / name, data)
    value = {"release_key": release_key.hex(), "base": base, "limits": asdict(membership.limits), "url": url}
    pki.write_private(folder / "membership.json", json.dumps(value, indent=1).encode())
    return membership


def read(folder: Path) -> Membership:
    """Return the membership kept in `folder`.

    Raises:
        NotInitialised: this device has joined no fleet.
        IntegrityError: the file is damaged.
    """
    path = folder / "membership.json"
    if not path.exists():
        raise NotInitialised("this device has joined no fleet", hint="Use `corrigible fleet join`.")
    try:
        value = json.loads(path.read_text())
        release_key, limits = bytes.fromhex(value["release_key"]), Limits(**value["limits"])
        return Membership(folder, release_key, str(value["base"]), limits, str(value.get("url", "")))
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("this device's fleet membership is damaged") from error
