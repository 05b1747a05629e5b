"""`corrigible init`: make the encrypted store, choose who keeps its key, and name the model."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Command
from cli.output import Report, facts
from cli.session import Session, read_passphrase
from store.errors import NotEligible, UsageError
from store.records import Consent, Purpose

if TYPE_CHECKING:
    from store.protectors import Protector

TERMS: dict[Purpose, str] = {
    "log": "Conversations are kept in the encrypted store on this device, for you to correct.",
    "learn": "Corrections train a personal adapter on this device; it never leaves it.",
}


@click.command(
    cls=Command,
    examples=["corrigible init", "corrigible init --key passphrase --model ~/models/qwen3-0.6b.gguf"],
    exits=[11, 13, 15],
)
@click.option(
    "--key",
    type=click.Choice(["keyring", "passphrase", "file"]),
    help="Who keeps the key (default: the system's keyring, else a passphrase).",
)
@click.option("--insecure-key-file", is_flag=True, help="Accept a key that lies beside the data (with --key file).")
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A GGUF to serve and teach (default: the embedded model).",
)
@click.pass_obj
def init(session: Session, key: str | None, insecure_key_file: bool, model: Path | None) -> Report:
    """Make the encrypted store and choose its key and model.

    Logging and learning stay on this device and are on from the start; sharing is off until you join a
    fleet. `corrigible privacy consent` changes any of them.
    """
    from cli.config import save_model
    from store.store import Store

    if insecure_key_file != (key == "file"):
        hint = "A key file protects nothing from whoever can read this folder: give --key file --insecure-key-file."
        raise UsageError("--key file and --insecure-key-file go together.", hint=hint)
    if model is not None:
        session.model(model)
        if session.home.config.exists():
            hint = f"Set path under [model] in {session.home.config}."
            raise UsageError("There is a settings file already.", hint=hint, code="config")
    backend = key or default_backend(session)
    with Store.create(session.home, protector(session, backend)) as store:
        now = time.time()
        store.add_all([Consent(purpose=purpose, granted=True, terms=text, time=now) for purpose, text in TERMS.items()])
    if model is not None:
        save_model(session.home.config, model.resolve())
    return _report(session, backend, model)


def default_backend(session: Session) -> str:
    """Return where the key goes when nobody said: the keyring if there is one, else a passphrase.

    Raises:
        NotEligible: there is no keyring and nobody to ask for a passphrase.
    """
    from store.protectors import keyring_usable

    if session.passphrase_file is not None:
        return "passphrase"
    if keyring_usable():
        return "keyring"
    if sys.stdin.isatty():
        return "passphrase"
    hint = "Give --passphrase-file FILE, or accept --key file --insecure-key-file."
    raise NotEligible("This system has no usable keyring, and there is nobody to ask.", hint=hint, code="no_keyring")


def protector(session: Session, backend: str) -> "Protector":
    """Return what wraps the data key."""
    from store.protectors import KeyFile, OsKeyring, Passphrase

    if backend == "keyring":
        return OsKeyring()
    if backend == "file":
        return KeyFile()
    return Passphrase(_new_passphrase(session))


def _new_passphrase(session: Session) -> str:
    """Read the new passphrase from the file, or twice from the person."""
    if session.passphrase_file is not None:
        return read_passphrase(session.passphrase_file)
    if not sys.stdin.isatty():
        raise UsageError("There is nobody to ask for a passphrase.", hint="Give --passphrase-file FILE.")
    secret: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return secret


def _report(session: Session, backend: str, model: Path | None) -> Report:
    """Say what was made and what comes next."""
    from store.keys import key_status

    warning = key_status(session.home).warning
    rows = {
        "store": str(session.home.data),
        "key": backend + (f" ({warning})" if warning else ""),
        "model": str(model or "embedded"),
        "logging": "on, on this device",
        "learning": "on, on this device",
        "sharing": "off",
        "next": "corrigible chat",
    }
    data = {
        "home": str(session.home.root),
        "data": str(session.home.data),
        "key": {"backend": backend, "warning": warning},
        "model": str(model) if model else None,
        "consents": {"log": True, "learn": True, "share": False},
    }
    return Report(data, lambda: facts(rows))
