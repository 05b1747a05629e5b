"""From a signed release to what devices are offered: the list in the state, the files, the repository, in that order.

Every step may be repeated; a server that died between two of them mends it when it starts.
"""

import time
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import release as releases
from federation import repository
from federation.charter import Charter
from federation.pki import load_signing_key, public_bytes
from federation.plan import ServerFolder
from federation.release import Release
from federation.repository import Standing
from federation.state import FleetState, ReleaseRow, ReleaseStatus
from store.errors import UsageError

EVERYBODY = 100


def publish(folder: ServerFolder, state: FleetState, made: Release, key: Ed25519PrivateKey) -> None:
    """Save a signed release and offer it to the first share of devices.

    Raises:
        CorrigibleError: the disk or the database refused; devices still see what they saw before.
    """
    releases.save(made, folder.releases)
    sync(folder, state, key)


def sync(folder: ServerFolder, state: FleetState, key: Ed25519PrivateKey) -> None:
    """List every release on disk, and let the repository offer exactly those that stand."""
    listed = {row.number for row in state.releases()}
    for path in sorted(folder.releases.glob("[0-9]*.json")):
        if int(path.stem) not in listed:
            _list(folder, state, _load(folder, int(path.stem), key))
    standing = [
        Standing(_load(folder, row.number, key), row.percent) for row in state.releases() if row.status != "withdrawn"
    ]
    repository.publish(folder, standing, key)


def promote(folder: ServerFolder, state: FleetState, name: str, percent: int) -> ReleaseRow:
    """Let a release reach `percent` of the devices; more than before, never fewer.

    Raises:
        UsageError: no such release, or it was withdrawn, or it is further out already.
    """
    row = find(state, name)
    if row.status == "withdrawn" or percent < row.percent:
        how = "was withdrawn" if row.status == "withdrawn" else f"reaches {row.percent} % of the devices already"
        raise UsageError(f"The release of round {row.number} {how}.", code="rollout")
    new = replace(row, percent=percent, status=_status(percent))
    state.set_release(new)
    state.log("promoted", release=row.id, round=row.number, percent=percent)
    sync(folder, state, load_signing_key(folder.release_key))
    return new


def withdraw(folder: ServerFolder, state: FleetState, name: str) -> tuple[list[ReleaseRow], Release]:
    """Take a release and all that were built on it back; the one before them is released again as the newest.

    The line of releases only ever grows, so a withdrawal cannot be mistaken for, or abused as, a rollback.

    Raises:
        UsageError: no such release, withdrawn already, or the empty one of round 0.
    """
    row, key = find(state, name), load_signing_key(folder.release_key)
    rows = state.releases()
    if row.status == "withdrawn" or row.number == 0:
        raise UsageError(f"The release of round {row.number} cannot be withdrawn.", code="withdrawn")
    going = [one for one in rows if one.number >= row.number and one.status != "withdrawn"]
    good = max(
        (one for one in rows if one.number < row.number and one.status != "withdrawn"), key=lambda one: one.number
    )
    newest, kept = _load(folder, rows[-1].number, key).manifest, _load(folder, good.number, key)
    manifest = replace(
        kept.manifest,
        parent=newest.id,
        round=newest.round + 1,
        epsilon=0.0,
        epsilon_total=newest.epsilon_total,
        time=time.time(),
    )
    again = releases.sign(manifest, kept.adapter, key)
    releases.save(again, folder.releases)
    state.set_release(_row(again, EVERYBODY))
    for one in going:
        state.set_release(replace(one, status="withdrawn"))
        state.log("withdrawn", release=one.id, round=one.number)
    state.log("released", release=again.manifest.id, round=manifest.round, percent=EVERYBODY, again=good.number)
    sync(folder, state, key)
    return going, again


def find(state: FleetState, name: str) -> ReleaseRow:
    """Return the release whose round, or the beginning of whose id, is `name`.

    Raises:
        UsageError: none, or more than one, fits.
    """
    plain = name.removeprefix("sha256:")
    found = [
        row
        for row in state.releases()
        if name == str(row.number) or (len(plain) >= 6 and row.id.removeprefix("sha256:").startswith(plain))
    ]
    if len(found) != 1:
        raise UsageError(f"{len(found)} releases fit {name!r}.", hint="`corrigible fleet release list` shows them.")
    return found[0]


def _list(folder: ServerFolder, state: FleetState, made: Release) -> None:
    """Put a release on the list at the share the operator chose."""
    share = Charter.read(folder.charter).rollout if folder.charter.exists() else EVERYBODY
    row = _row(made, EVERYBODY if made.manifest.round == 0 else share)
    state.set_release(row)
    state.log("released", release=row.id, round=row.number, percent=row.percent)


def _row(made: Release, percent: int) -> ReleaseRow:
    """A release as the state keeps it."""
    manifest = made.manifest
    return ReleaseRow(
        id=manifest.id, number=manifest.round, status=_status(percent), percent=percent, time=manifest.time
    )


def _status(percent: int) -> ReleaseStatus:
    """The word for how far a release is out."""
    return "promoted" if percent == EVERYBODY else "staged"


def _load(folder: ServerFolder, number: int, key: Ed25519PrivateKey) -> Release:
    """A release on disk, verified."""
    path = folder.releases / f"{number:05d}.json"
    return releases.load(path, release_key=public_bytes(key), base=releases.peek(path))
