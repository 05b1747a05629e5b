"""The fleet's releases as The Update Framework publishes them: static files that any web server or CDN can carry.

Root vouches for the keys, targets (the release key) for the releases and how far each is out, snapshot and timestamp
(one online key) for what is current. Files of a new state are complete before the timestamp that names them appears,
so a crash or a full disk leaves the old state standing. Withdrawn releases are simply no longer listed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from federation.pki import create_signing_key, load_signing_key
from federation.plan import ServerFolder
from federation.release import Release
from store.errors import IntegrityError
from store.files import private_folder, write_atomic

LIFETIME = {"root": 365, "targets": 90, "snapshot": 30, "timestamp": 3}  # days
FRESH = 1 / 2  # of its lifetime: after that a role is signed again
HASHES = ["sha256"]
ROLES = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True)
class Standing:
    """One release that stands, and the share of devices that may take it."""

    release: Release
    rollout: int  # percent


def names(number: int) -> tuple[str, str]:
    """Return the target names of a release: its signed manifest, its adapter."""
    return f"{number:05d}.json", f"{number:05d}.gguf"


def create(folder: ServerFolder, release_key: Ed25519PrivateKey) -> bytes:
    """Make root and online key and publish an empty list of releases; return the root that devices pin.

    The root key is needed again only to change keys: it belongs on a medium that is not the server.
    """
    root_key = create_signing_key(folder.root_key)
    online = create_signing_key(folder.online_key)
    for part in (folder.repository, folder.metadata, folder.targets):
        private_folder(part)
    root = Root(expires=_end("root"))
    root.add_key(CryptoSigner(root_key).public_key, "root")
    root.add_key(CryptoSigner(release_key).public_key, "targets")
    for role in ("snapshot", "timestamp"):
        root.add_key(CryptoSigner(online).public_key, role)
    data = _signed(root, root_key)
    write_atomic(folder.metadata / "1.root.json", [data])
    _write(folder, {}, release_key, online)
    return data


def publish(folder: ServerFolder, standing: Sequence[Standing], release_key: Ed25519PrivateKey) -> bool:
    """Let the repository list exactly the releases that stand; return whether anything changed.

    Raises:
        CorrigibleError: the disk refused; what was published before stands.
    """
    wanted: dict[str, TargetFile] = {}
    for one in standing:
        wanted |= _add_files(folder, one)
    current = _newest(folder, "targets")
    if current is not None and _plain(current.signed.targets) == _plain(wanted) and not _stale(current):
        return refresh(folder)
    _write(folder, wanted, release_key, load_signing_key(folder.online_key))
    return True


def refresh(folder: ServerFolder) -> bool:
    """Sign snapshot and timestamp again when half their time is over; return whether that was needed."""
    found = {role: _newest(folder, role) for role in ROLES[1:]}
    if any(found[role] is None or _stale(found[role]) for role in ("snapshot", "timestamp")):
        _write_current(folder, load_signing_key(folder.online_key))
        return True
    return False


def root_of(folder: ServerFolder) -> bytes:
    """Return the first root, which devices pin on joining."""
    try:
        return (folder.metadata / "1.root.json").read_bytes()
    except OSError as error:
        raise IntegrityError("the fleet's release repository is missing", hint="Restore it from a backup.") from error


def _add_files(folder: ServerFolder, one: Standing) -> dict[str, TargetFile]:
    """Put a release's two files in place and return them as targets."""
    manifest_name, adapter_name = names(one.release.manifest.round)
    found = {}
    for name, data in ((manifest_name, one.release.envelope), (adapter_name, one.release.adapter)):
        target = TargetFile.from_data(name, data, HASHES)
        place = folder.targets / f"{target.hashes['sha256']}.{name}"
        if not place.exists():
            write_atomic(place, [data])
        found[name] = target
    found[manifest_name].unrecognized_fields = {"custom": custom(one)}
    return found


def custom(one: Standing) -> dict[str, Any]:
    """Return what the list says about a release beside its hash, so that nobody need open it to know."""
    manifest = one.release.manifest
    return {
        "id": manifest.id,
        "round": manifest.round,
        "parent": manifest.parent,
        "base": manifest.base,
        "cohort": manifest.cohort,
        "mechanism": manifest.mechanism.id,
        "seed_a": manifest.mechanism.seed_a,
        "unit": manifest.mechanism.unit,
        "epsilon": f"{manifest.epsilon:.6g}",  # the framework's canonical form knows whole numbers only
        "epsilon_total": f"{manifest.epsilon_total:.6g}",
        "delta": f"{manifest.delta:g}",
        "rollout": one.rollout,
    }


def _write(
    folder: ServerFolder, targets: dict[str, TargetFile], release_key: Ed25519PrivateKey, online: Ed25519PrivateKey
) -> None:
    """Sign a new list of targets and, after it, the snapshot and timestamp that name it."""
    version = _version(folder, "targets") + 1
    data = _signed(Targets(version=version, expires=_end("targets"), targets=targets), release_key)
    write_atomic(folder.metadata / f"{version}.targets.json", [data])
    _write_current(folder, online)


def _write_current(folder: ServerFolder, online: Ed25519PrivateKey) -> None:
    """Sign snapshot and timestamp over the newest targets; the timestamp appears last."""
    targets = _version(folder, "targets")
    version = _version(folder, "snapshot") + 1
    listed = _meta(folder.metadata / f"{targets}.targets.json", targets)
    snapshot = Snapshot(version=version, expires=_end("snapshot"), meta={"targets.json": listed})
    path = folder.metadata / f"{version}.snapshot.json"
    write_atomic(path, [_signed(snapshot, online)])
    before = _newest(folder, "timestamp")
    timestamp = Timestamp(
        version=before.signed.version + 1 if before else 1,
        expires=_end("timestamp"),
        snapshot_meta=_meta(path, version),
    )
    write_atomic(folder.metadata / "timestamp.json", [_signed(timestamp, online)])


def _meta(path: Path, version: int) -> MetaFile:
    """Version, length and hash of a metadata file, so that parts of two states cannot be mixed."""
    data = path.read_bytes()
    return MetaFile.from_data(version, data, HASHES)


def _signed(role: Root | Targets | Snapshot | Timestamp, key: Ed25519PrivateKey) -> bytes:
    """A role's file."""
    metadata: Metadata[Any] = Metadata(role)
    metadata.sign(CryptoSigner(key))
    data: bytes = metadata.to_bytes()
    return data


def _newest(folder: ServerFolder, role: str) -> "Metadata[Any] | None":
    """The newest file of a role, None before there is one."""
    path = folder.metadata / ("timestamp.json" if role == "timestamp" else f"{_version(folder, role)}.{role}.json")
    if not path.exists():
        return None
    metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    return metadata


def _version(folder: ServerFolder, role: str) -> int:
    """The highest version of a role on disk, published or left by a crash; 0 when there is none."""
    found = (path.name.partition(".")[0] for path in folder.metadata.glob(f"*.{role}.json"))
    return max((int(number) for number in found if number.isdigit()), default=0)


def _stale(metadata: "Metadata[Any] | None") -> bool:
    """Say whether less than half of a role's lifetime is left."""
    if metadata is None:
        return True
    left: timedelta = metadata.signed.expires - datetime.now(UTC)
    return left < FRESH * timedelta(days=LIFETIME[metadata.signed.type])


def _end(role: str) -> datetime:
    """When a role signed now expires."""
    return (datetime.now(UTC) + timedelta(days=LIFETIME[role])).replace(microsecond=0)


def _plain(targets: dict[str, TargetFile]) -> dict[str, Any]:
    """Targets as JSON values, to compare."""
    return {name: json.loads(json.dumps(target.to_dict())) for name, target in targets.items()}
