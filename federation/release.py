"""A release: the shared adapter's bytes and a signed manifest that says what it is and what it cost.

The GGUF itself is shipped, not only its B half: the digest that is signed is then the digest that is served, and a
device needs no trainer to use it. A device still checks that A is the public one. Judging it is `learner.cycle`'s.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.pki import public_bytes, signed_by
from federation.spec import RoundSpec
from store.errors import ReleaseRejected, UsageError
from store.files import write_atomic
from store.records import canonical, digest

VERSION = 1
CONTEXT = b"corrigible release 1\0"
MANIFEST_LIMIT = 64 * 1024  # bytes
ADAPTER_LIMIT = 512 * 1024 * 1024
ADJACENCY = "add/remove one correction"
TRUST = "noise on the device, server untrusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a release says about itself; all of it is signed."""

    version: int = VERSION
    fleet: str  # the fleet's identity: digest of its release key
    base: str  # tagged hash of the base GGUF
    parent: str | None  # id of the release it was made from
    round: int  # grows by one with every release of the fleet; 0 is the empty adapter
    cohort: int  # updates averaged
    adapter: str  # tagged hash of the GGUF bytes
    size: int  # bytes of the GGUF
    max_norm: float  # L2 bound of all B factors together
    mechanism: RoundSpec
    epsilon: float  # of this round, for one correction
    epsilon_total: float  # of all rounds of the fleet so far, for one that was used in each
    delta: float
    adjacency: str = ADJACENCY
    trust: str = TRUST
    probe: dict[str, float] = field(default_factory=dict)  # operator's probe set, before and after, points
    time: float

    @property
    def id(self) -> str:
        """Tagged hash of the canonical manifest: the release's name."""
        return digest(canonical(asdict(self)))


@dataclass(frozen=True, slots=True)
class Release:
    """A manifest with its signature, and the adapter it speaks of."""

    manifest: Manifest
    signature: bytes
    adapter: bytes

    @property
    def envelope(self) -> bytes:
        """The signed manifest as bytes: canonical JSON of ``{manifest, signature}``."""
        return canonical({"manifest": asdict(self.manifest), "signature": self.signature.hex()})


def fleet_identity(release_key: bytes) -> str:
    """Return the identity of the fleet that signs with this 32-byte public key."""
    return digest(release_key)


def sign(manifest: Manifest, adapter: bytes, key: Ed25519PrivateKey) -> Release:
    """Sign `manifest` for these adapter bytes.

    Raises:
        ReleaseRejected: the manifest speaks of other bytes or of another fleet.
    """
    if (manifest.adapter, manifest.size) != (digest(adapter), len(adapter)):
        raise _rejected("adapter", "the manifest names other adapter bytes")
    if manifest.fleet != fleet_identity(public_bytes(key)):
        raise _rejected("fleet", "the manifest names another fleet")
    return Release(manifest, key.sign(CONTEXT + canonical(asdict(manifest))), adapter)


def verify(
    envelope: bytes, adapter: bytes, *, release_key: bytes, base: str, current: Manifest | None = None
) -> Release:
    """Check a release before anything in its adapter is parsed.

    Args:
        envelope: bytes of the signed manifest as received.
        adapter: GGUF bytes as received.
        release_key: the 32-byte public key pinned on joining.
        base: tagged hash of the device's base model.
        current: manifest of the newest release this device has accepted.

    Raises:
        ReleaseRejected: code ``size, format, signature, version, fleet, base, adapter, range, rollback, fork, parent``.
    """
    if len(envelope) > MANIFEST_LIMIT or len(adapter) > ADAPTER_LIMIT:
        raise _rejected("size", "the release is too large")
    value, signature = _open(envelope)
    if not signed_by(release_key, signature, CONTEXT + canonical(value)):
        raise _rejected("signature", "the signature is not the fleet's")
    manifest = _parse(value)
    checks = (
        (manifest.version == VERSION, "version", "the manifest has another version"),
        (manifest.fleet == fleet_identity(release_key), "fleet", "the release is another fleet's"),
        (manifest.base == base, "base", "the release is for another base model"),
        (len(adapter) == manifest.size, "adapter", "the adapter has another length"),
        (digest(adapter) == manifest.adapter, "adapter", "the adapter's bytes are not the signed ones"),
    )
    for holds, code, message in checks:
        if not holds:
            raise _rejected(code, message)
    _check_lineage(manifest, current)
    return Release(manifest, signature, adapter)


def save(release: Release, folder: Path) -> Path:
    """Write the release as ``folder/00042.json`` and ``00042.gguf``; the manifest appears last and whole."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{release.manifest.round:05d}"
    for suffix, data in ((".gguf", release.adapter), (".json", release.envelope)):
        write_atomic(stem.with_suffix(suffix), [data])
    return stem.with_suffix(".json")


def load(path: Path, *, release_key: bytes, base: str, current: Manifest | None = None) -> Release:
    """Read and verify the release whose manifest is at `path`."""
    try:
        return verify(
            path.read_bytes(),
            path.with_suffix(".gguf").read_bytes(),
            release_key=release_key,
            base=base,
            current=current,
        )
    except OSError as error:
        raise _rejected("missing", f"release {path.stem} cannot be read") from error


def peek(path: Path) -> str:
    """Return the base that an unverified manifest at `path` names; to be verified against."""
    try:
        return str(json.loads(path.read_bytes())["manifest"]["base"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _rejected("missing", f"release {path.stem} cannot be read") from error


def newest(folder: Path) -> Path | None:
    """Return the path of the newest release's manifest in `folder`."""
    return max(folder.glob("[0-9]*.json"), default=None)


def _open(envelope: bytes) -> tuple[dict[str, Any], bytes]:
    """Split an envelope into manifest and signature."""
    try:
        value = json.loads(envelope)
        manifest, signature = value["manifest"], bytes.fromhex(value["signature"])
        canonical(manifest)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _rejected("format", "the manifest cannot be read") from error
    if not isinstance(manifest, dict) or set(value) != {"manifest", "signature"}:
        raise _rejected("format", "the manifest cannot be read")
    return manifest, signature


def _parse(value: dict[str, Any]) -> Manifest:
    """Rebuild the manifest from signed JSON; its numbers must be finite and in range."""
    try:
        manifest = Manifest(**{**value, "mechanism": RoundSpec.parse(value["mechanism"])})
        sound = (
            all(type(number) is int and number >= 0 for number in (manifest.round, manifest.cohort, manifest.size))
            and all(
                math.isfinite(number) and number >= 0
                for number in (manifest.max_norm, manifest.epsilon, manifest.epsilon_total, manifest.delta)
            )
            and math.isfinite(manifest.time)
        )
    except (TypeError, KeyError, UsageError) as error:
        raise _rejected("format", "the manifest has missing, unknown or ill-typed fields") from error
    if not sound:
        raise _rejected("range", "the manifest has a number out of range")
    return manifest


def _check_lineage(manifest: Manifest, current: Manifest | None) -> None:
    """No way back, no second release of one round, no foreign parent."""
    if current is None or manifest.id == current.id:
        return
    if manifest.round < current.round:
        raise _rejected("rollback", f"round {manifest.round} is older than round {current.round}")
    if manifest.round == current.round:
        raise _rejected("fork", f"round {manifest.round} was released twice")
    if manifest.round == current.round + 1 and manifest.parent != current.id:
        raise _rejected("parent", f"round {manifest.round} does not continue round {current.round}")


def _rejected(code: str, message: str) -> ReleaseRejected:
    """The one shape of a refusal here."""
    return ReleaseRejected(message, hint="Ask the operator; nothing was changed on this device.", code=code)
