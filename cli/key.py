"""`corrigible key`: who guards the data key, changing that, a new key for everything, and letting go of it now."""

import time
from dataclasses import asdict
from pathlib import Path

import click

from cli.base import Group
from cli.output import Report, facts
from cli.protection import Asked, check_file_choice, guard_options, new_passphrase, protector
from cli.session import Session

HELD_BY = {
    "keyring": "the system's keyring, which opens with your login",
    "systemd": "a credential that systemd hands to the service",
    "passphrase": "your passphrase",
    "file": "a file beside the store",
}


@click.group(cls=Group, examples=["corrigible key status", "corrigible key change-passphrase"])
def key() -> None:
    """Who guards the key of the store; change, rotate, lock."""


@key.command(examples=["corrigible key status", "corrigible key status --json"], exits=[10, 13])
@click.pass_obj
def status(session: Session) -> Report:
    """Say who guards the key, how strongly, and which processes have it in memory now.

    Asks for no secret.
    """
    from store.holders import users
    from store.keys import key_status
    from store.protectors import keyring_usable

    found = key_status(session.home)
    using = users(session.home)
    cost = asdict(found.cost) if found.cost else None
    data = {
        "backend": found.backend,
        "generation": found.generation,
        "warning": found.warning,
        "cost": cost,
        "keyring": keyring_usable(),
        "in_use_by": using,
    }
    rows = {
        "guarded by": HELD_BY[found.backend],
        "warning": found.warning,
        "passphrase": f"Argon2id, {cost['memory']} KiB, {cost['passes']} passes, {cost['lanes']} lanes" if cost else "",
        "generation": str(found.generation),
        "in memory of": ", ".join(f"process {one}" for one in using) or "no process",
    }
    return Report(data, lambda: facts({name: text for name, text in rows.items() if text}))


@key.command(
    "change-passphrase",
    examples=["corrigible key change-passphrase", "corrigible key change-passphrase --key keyring"],
    exits=[1, 10, 11, 12, 13],
)
@guard_options
@click.pass_obj
def change_passphrase(
    session: Session, key: str | None, insecure_key_file: bool, new_passphrase_file: Path | None
) -> Report:
    """Guard the same key by a new passphrase, or by another keeper with --key; nothing is re-encrypted.

    Backups made under the old passphrase still open with the old one.
    """
    from store.keychange import change_protector

    check_file_choice(key, insecure_key_file)
    with session.keys() as keys:
        guard = protector(key or "passphrase", lambda: new_passphrase(new_passphrase_file))
        change_protector(session.home, keys, guard)
    return _changed(session, "The key is the same; it is guarded by {} from now on.")


@key.command(examples=["corrigible key rotate", "corrigible key rotate --json"], exits=[1, 10, 11, 12, 13])
@click.pass_obj
def rotate(session: Session) -> Report:
    """Encrypt everything anew under a fresh key, guarded as before, and shred the old one.

    No other process may have the store open. Killed at any moment, exactly one of the two keys opens it.
    """
    from store.keychange import rotate as renew
    from store.keys import read_key_record, unlock

    asked, started = Asked(session), time.monotonic()
    record = read_key_record(session.home)
    keys = unlock(session.home, passphrase=asked)
    try:
        renew(session.home, keys, protector(record.backend, asked, record.params)).wipe()
    finally:
        keys.wipe()
    seconds = time.monotonic() - started
    return _changed(session, f"Everything is under a new key ({seconds:.1f} s), guarded by {{}}.")


@key.command(examples=["corrigible key lock", "corrigible key lock --json"], exits=[10, 11, 13])
@click.pass_obj
def lock(session: Session) -> Report:
    """End every process that has the key in memory: the background learner, the gateway, open chats.

    Nothing acknowledged is lost. Afterwards the store opens only with what guards its key.
    """
    from store.holders import end_users
    from store.keys import key_status

    backend = key_status(session.home).backend
    ended = end_users(session.home)
    who = ", ".join(map(str, ended))
    words = f"Ended process {who}. " if ended else "No process had it open. "
    return Report(
        {"ended": ended, "backend": backend}, lambda: f"{words}The store opens again with {HELD_BY[backend]}."
    )


def _changed(session: Session, words: str) -> Report:
    """Report who guards the key now."""
    from store.keys import key_status

    now = key_status(session.home)
    data = {"backend": now.backend, "generation": now.generation, "warning": now.warning}
    warning = f"\n{now.warning}" if now.warning else ""
    return Report(data, lambda: words.format(HELD_BY[now.backend]) + warning)
