"""`corrigible init`: make the encrypted store, choose who keeps its key, and name the model."""

import time
from pathlib import Path

import click

from cli.base import Command
from cli.output import Report, facts
from cli.protection import check_file_choice, default_backend, guard_options, new_passphrase, protector
from cli.session import Session
from store.errors import UsageError
from store.records import Consent, Purpose

TERMS: dict[Purpose, str] = {
    "log": "Conversations are kept in the encrypted store on this device, for you to correct.",
    "learn": "Corrections train a personal adapter on this device; it never leaves it.",
}


@click.command(
    cls=Command,
    examples=["corrigible init", "corrigible init --key passphrase --model ~/models/qwen3-0.6b.gguf"],
    exits=[11, 13, 15],
)
@guard_options
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A GGUF to serve and teach (default: the embedded model).",
)
@click.pass_obj
def init(
    session: Session,
    key: str | None,
    insecure_key_file: bool,
    new_passphrase_file: Path | None,
    model: Path | None,
) -> Report:
    """Make the encrypted store and choose its key and model.

    The key goes into the system's keyring; where there is none, systemd's credential or a passphrase guards it.

    Logging and learning stay on this device and are on from the start; sharing is off until you join a
    fleet. `corrigible privacy consent` changes any of them.
    """
    from cli.config import set_model
    from store.store import Store

    check_file_choice(key, insecure_key_file)
    if model is not None:
        session.model(model)
        if session.home.config.exists():
            hint = f"Set path under [model] in {session.home.config}."
            raise UsageError("There is a settings file already.", hint=hint, code="config")
    file = new_passphrase_file or session.passphrase_file
    backend = key or ("passphrase" if file else default_backend(session))
    guard = protector(backend, lambda: new_passphrase(file, "--passphrase-file"))
    with Store.create(session.home, guard) as store:
        now = time.time()
        store.add_all([Consent(purpose=purpose, granted=True, terms=text, time=now) for purpose, text in TERMS.items()])
    if model is not None:
        set_model(session.home.config, model.resolve())
    return _report(session, backend, model)


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
