"""`corrigible backup`: an encrypted copy in any folder, checked whenever you like, restored anywhere."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Group
from cli.output import Report, facts, when
from cli.protection import SECRET_FILE, Asked, check_file_choice, guard_options, new_passphrase, protector
from cli.session import Session, confirm
from store.errors import IntegrityError, NotInitialised

if TYPE_CHECKING:
    from store.keys import Keys
    from store.protectors import Protector
    from store.records import Record

EXITS = (1, 10, 11, 12, 13)

folder_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
phrase_option = click.option(
    "--backup-passphrase-file", type=SECRET_FILE, help="Read the backup's own passphrase from this file."
)


@click.group(cls=Group, examples=["corrigible backup create /media/disk", "corrigible backup verify FOLDER"])
def backup() -> None:
    """Copy the store, encrypted, to any folder; check and restore copies."""


@backup.command(
    examples=[
        "corrigible backup create /media/disk",
        "corrigible backup create ~/copies --backup-passphrase-file FILE --json",
    ],
    exits=EXITS,
)
@folder_argument
@phrase_option
@click.pass_obj
def create(session: Session, folder: Path, backup_passphrase_file: Path | None) -> Report:
    """Make a new copy inside FOLDER; other processes may go on using the store.

    A store guarded by a passphrase needs none for the copy: it opens with the store's present one. Otherwise the
    copy gets a passphrase of its own, because a keyring does not travel.
    """
    from store.backup import create_backup
    from store.keys import read_key_record

    backend = read_key_record(session.home).backend
    guard: Protector | None = None
    if backup_passphrase_file or backend != "passphrase":
        phrase = new_passphrase(backup_passphrase_file, "--backup-passphrase-file")
        guard = protector("passphrase", lambda: phrase)
    with session.unlocked() as (store, keys):
        made = create_backup(store, keys, folder, guard)
    size = sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file())
    data = {"folder": str(made.folder), "time": made.time, "records": sum(made.counts.values()), "bytes": size}
    return Report(data, lambda: f"{data['records']} records, {size} bytes: {made.folder}")


@backup.command(examples=["corrigible backup verify /media/disk/corrigible-20260101-120000-ab12"], exits=EXITS)
@folder_argument
@phrase_option
@click.pass_obj
def verify(session: Session, folder: Path, backup_passphrase_file: Path | None) -> Report:
    """Check every file, page and record of the copy in FOLDER; writes nothing.

    Exit code 13 when anything is missing or was changed.
    """
    from store.backup import read_manifest, unlock_backup, verify_backup

    keys = unlock_backup(folder, session.home, passphrase=Asked(session, backup_passphrase_file))
    try:
        made, report = read_manifest(folder, keys), verify_backup(folder, keys)
    finally:
        keys.wipe()
    problems = [{"code": one.code, "message": one.message} for one in report.problems]
    data = {"folder": str(folder), "time": made.time, "records": sum(made.counts.values()), "problems": problems}
    rows = {"made": when(made.time), "records": str(data["records"])}
    rows |= {f"problem {number}": one["message"] for number, one in enumerate(problems, 1)}
    return Report(data, lambda: facts(rows | ({} if problems else {"state": "whole"})), 13 if problems else 0)


@backup.command(
    examples=[
        "corrigible backup restore /media/disk/corrigible-20260101-120000-ab12",
        "corrigible backup restore FOLDER --replace --key keyring",
    ],
    exits=[*EXITS, 130],
)
@folder_argument
@phrase_option
@guard_options
@click.option("--replace", is_flag=True, help="Replace the store that is here.")
@click.option("--yes", is_flag=True, help="Do not ask (with --replace).")
@click.pass_obj
def restore(
    session: Session,
    folder: Path,
    backup_passphrase_file: Path | None,
    key: str | None,
    insecure_key_file: bool,
    new_passphrase_file: Path | None,
    replace: bool,
    yes: bool,
) -> Report:
    """Make the copy in FOLDER the store of this home, under a fresh key guarded like the copy's (or see --key).

    Consents, privacy budget spent and messages sent since the copy was made are carried over from a store that
    is replaced: going back in time gives no budget back.
    """
    from store.backup import guard_of, read_manifest, restore_backup, unlock_backup

    check_file_choice(key, insecure_key_file)
    asked = Asked(session, backup_passphrase_file)
    keys = unlock_backup(folder, session.home, passphrase=asked)
    made = read_manifest(folder, keys)
    carry = _carried(session, yes) if replace else []
    record = guard_of(folder)
    new = Asked(session, new_passphrase_file) if new_passphrase_file else asked
    guard = protector(key or record.backend, new, record.params)
    _restored(restore_backup(folder, keys, session.home, guard, replace=replace, carry=carry), keys)
    data = {"home": str(session.home.data), "records": sum(made.counts.values()), "carried": len(carry)}
    return Report(data, lambda: f"{data['records']} records are back; {len(carry)} ledger entries carried over.")


def _restored(*keys: "Keys") -> None:
    """Wipe keys that are not needed any more."""
    for one in keys:
        one.wipe()


def _carried(session: Session, yes: bool) -> Sequence["Record"]:
    """Ask, and return the ledger entries of the store that is about to be replaced, damaged or not.

    Raises:
        IntegrityError: it is too damaged to say what its ledgers hold.
    """
    from store.backup import ledger_entries, readable_ledgers
    from store.keys import key_status
    from store.store import Store

    try:
        key_status(session.home)
    except NotInitialised:
        return []
    confirm(session, f"This replaces the store in {session.home.data} by the backup.", yes)
    with session.keys() as keys:
        with suppress(IntegrityError), Store.open(session.home, keys) as store:
            if not store.damage:
                return ledger_entries(store)
        return readable_ledgers(session.home, keys)
