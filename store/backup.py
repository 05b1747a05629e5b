"""Backups: a folder holding an encrypted copy of the whole store, verifiable and restorable anywhere.

The copy stays under the store's data key; the backup's own key.json wraps that key, either as the store does
or with a passphrase of the backup's own, which is what opens it on another machine. A manifest, authenticated
with the ledger subkey, lists every file.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.anchor import Anchor, Mark
from store.append import kind_counts, tail
from store.artefacts import Artefacts
from store.base import Problem, Report, StoreBase
from store.codec import decode
from store.engine import damaged_pages, open_engine, open_still, reading
from store.errors import IntegrityError, UsageError
from store.files import private_folder, sync_file, sync_folder, unwritable, write_atomic
from store.generation import ARTEFACTS, DATABASE, alone, found, refuse_existing, settle
from store.keychange import commit
from store.keys import KeyRecord, Keys, check_keys, read_key_record, unwrap, wrap, write_key_record
from store.migrate import check_known, revision
from store.paths import Home
from store.protectors import Protector, protector_for
from store.rebuild import readable_artefacts, readable_rows, rebuild, rows_of
from store.records import Consent, Egress, Record, Spend, canonical
from store.store import Store
from store.verify import chain_flaws, describe

MANIFEST = "manifest.json"
LEDGERS: tuple[type[Record], ...] = (Consent, Spend, Egress)  # a restore never takes these back


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup's manifest says."""

    folder: Path
    time: float
    seq: int  # newest link of the chain
    counts: dict[str, int]  # rows by kind
    files: dict[str, str]  # name in the folder to SHA-256


def create_backup(store: Store, keys: Keys, target: Path, protector: Protector | None = None) -> Backup:
    """Copy `store` into a new folder inside `target`; other processes may go on using the store.

    Args:
        store: open.
        keys: its keys.
        target: any folder, e.g. on another disk.
        protector: what guards the copy; None: whatever guards the store. A keyring or key file does not travel, and
            forgets the key when it is rotated: then give a passphrase.

    Raises:
        UsageError: `target` lies inside the store (``backup_inside``).
        CorrigibleError: the disk refused; no finished backup is left behind.
    """
    if target.resolve().is_relative_to(store.home.data.resolve()):
        raise UsageError(
            "A backup inside the store's own folder is no backup.", hint="Name another folder.", code="backup_inside"
        )
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    final = target / f"corrigible-{stamp}-{secrets.token_hex(2)}"
    partial = final.with_name(f"{final.name}.partial")
    try:
        private_folder(partial)
        private_folder(partial / ARTEFACTS)
        store.copy_to(partial / DATABASE, partial / ARTEFACTS)
        record = read_key_record(store.home)
        here = _home(partial)
        write_key_record(here, wrap(keys, protector, here, record.generation) if protector else record)
        _write_manifest(partial, keys)
        partial.rename(final)
        sync_folder(target)
    except OSError as error:
        raise unwritable(error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_manifest(final, keys)


def guard_of(folder: Path) -> KeyRecord:
    """What guards a backup. Raises UsageError when `folder` is none."""
    _require_backup(folder)
    return read_key_record(_home(folder))


def unlock_backup(folder: Path, home: Home, *, passphrase: Callable[[], str] | None = None) -> Keys:
    """The keys of a backup; `home` is where a key file or credential of the store would be.

    Raises:
        UsageError: this is not a backup.
        WrongKey, Locked, IntegrityError: as `store.keys.unlock`.
    """
    record = guard_of(folder)
    return unwrap(record, protector_for(record.backend, record.params, passphrase), home)


def read_manifest(folder: Path, keys: Keys) -> Backup:
    """The manifest of a backup.

    Raises:
        UsageError: this is not a backup (``not_a_backup``).
        WrongKey: `keys` do not open it.
        IntegrityError: the manifest was changed.
    """
    check_keys(guard_of(folder), keys)
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
        body: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if hmac.compare_digest(body.pop("mac"), _mac(body, keys)):
            return Backup(folder, **body)
    raise IntegrityError("The backup's manifest was changed.", hint="Use another backup.", code="backup_damaged")


def verify_backup(folder: Path, keys: Keys) -> Report:
    """Check every file, page and link of a backup; writes nothing, so read-only media are fine.

    Raises:
        UsageError, WrongKey, IntegrityError: as `read_manifest`.
    """
    backup = read_manifest(folder, keys)
    changed = [
        Problem("backup_damaged", f"The file {name} of the backup is missing or was changed.")
        for name, wanted in backup.files.items()
        if _hash_file(folder / name) != wanted
    ]
    if changed:
        return Report(0, tuple(changed))
    engine = open_still(folder / DATABASE, keys.secret("database"))
    try:
        check_known(revision(engine))
        problems = [Problem("pages", f"The database is damaged: {words}.") for words in damaged_pages(engine)]
        with reading(engine) as connection:
            problems += [describe(flaw) for flaw in chain_flaws(connection, keys.sub("ledger"))]
            newest, _ = tail(connection, b"")
    finally:
        engine.dispose()
    if newest != backup.seq:
        problems.append(Problem("missing", f"The backup ends at record {newest}, not {backup.seq}."))
    return Report(sum(backup.counts.values()), tuple(problems))


def restore_backup(
    folder: Path,
    keys: Keys,
    home: Home,
    protector: Protector,
    *,
    replace: bool = False,
    carry: Sequence[Record] = (),
) -> Keys:
    """Make the backup the store of `home`, under a fresh data key, and return that key.

    Args:
        folder: the backup.
        keys: the backup's keys.
        home: where to.
        protector: what guards the new key.
        replace: allow replacing a store that is there.
        carry: `ledger_entries` of the store that is replaced; those the backup lacks are added, because going
            back in time never gives privacy budget back.

    Raises:
        IntegrityError: the backup is damaged; nothing was changed.
        UsageError: there is a store and `replace` is False.
        Locked: another process has the store open.
    """
    report = verify_backup(folder, keys)
    if not report.ok:
        raise IntegrityError("The backup is damaged.", hint=report.problems[0].message, code="backup_damaged")
    home.create()
    fresh = Keys.generate()
    with alone(home):
        if not replace:
            refuse_existing(home)
        before = read_key_record(home) if home.key_file.exists() else None
        number = 1 + max([0, *(number for number, _ in found(home).values())])
        shelf = Artefacts(folder / ARTEFACTS, keys.sub("artefacts"))
        engine = open_still(folder / DATABASE, keys.secret("database"))
        try:
            rebuild(home, number, fresh, rows_of(engine), readable_artefacts(shelf), carry)
        finally:
            engine.dispose()
        commit(home, wrap(fresh, protector, home, number), protector, before)
    settle(home, read_key_record(home))
    return fresh


def ledger_entries(store: StoreBase) -> list[Record]:
    """Everything a restore must not take back."""
    return [record for kind in LEDGERS for record in store.all(kind)]


def readable_ledgers(home: Home, keys: Keys) -> list[Record]:
    """As `ledger_entries`, of a store too damaged to open.

    Raises:
        IntegrityError: not all that the anchor counts can be read (``ledgers_lost``).
    """
    number = read_key_record(home).generation
    anchor = Anchor(home.anchor(number), keys.secret("ledger"))
    names = {kind.__name__ for kind in LEDGERS}
    entries: list[Record] = []
    try:
        mark = anchor.read() or Mark(0, "")
        with contextlib.suppress(IntegrityError):
            engine = open_engine(home.generation(number) / DATABASE, keys.secret("database"))
            try:
                rows = [row for row in readable_rows(engine, mark.seq) if row.kind in names and row.body]
            finally:
                engine.dispose()
            entries = [decode(row.kind, row.body or "") for row in rows]
    finally:
        anchor.close()
    if not mark.seq or len(entries) < sum(mark.counts.get(name, 0) for name in names):
        raise IntegrityError(
            "The store that is here is too damaged to say what its ledgers hold.",
            hint="Remove it by name with `corrigible wipe`, then restore the backup.",
            code="ledgers_lost",
        )
    return entries


def _write_manifest(folder: Path, keys: Keys) -> None:
    """Describe and authenticate what is in `folder`."""
    engine = open_still(folder / DATABASE, keys.secret("database"))
    try:
        with reading(engine) as connection:
            seq, _ = tail(connection, b"")
            counts = kind_counts(connection, 1, seq)
    finally:
        engine.dispose()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        sync_file(folder / name)
    body = {
        "time": time.time(),
        "seq": seq,
        "counts": counts,
        "files": {name: _hash_file(folder / name) for name in names},
    }
    write_atomic(folder / MANIFEST, [json.dumps(body | {"mac": _mac(body, keys)}, indent=1).encode()])
    sync_folder(folder / ARTEFACTS)


def _mac(body: dict[str, Any], keys: Keys) -> str:
    return hmac.new(keys.sub("ledger"), b"manifest\0" + canonical(body), "sha256").hexdigest()


def _hash_file(path: Path) -> str:
    """SHA-256 of a file, empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _require_backup(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise UsageError("This folder is not a backup.", hint="Name a folder corrigible-...", code="not_a_backup")


def _home(folder: Path) -> Home:
    """A home whose key.json is the backup's own."""
    return Home(folder, folder / "config.toml", folder, folder, folder)
