"""Who guards the data key: the options that choose a guard, and asking for new passphrases."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.session import Session, read_passphrase
from store.errors import NotEligible, UsageError

if TYPE_CHECKING:
    from store.protectors import Protector

BACKENDS = ("keyring", "systemd", "passphrase", "file")
SECRET_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

F = TypeVar("F", bound=Callable[..., Any])


def guard_options(command: F) -> F:
    """Add the options that choose who guards a key from now on."""
    for option in (
        click.option(
            "--new-passphrase-file", type=SECRET_FILE, help="Read the new passphrase from this file (else a prompt)."
        ),
        click.option(
            "--insecure-key-file", is_flag=True, help="Accept a key that lies beside the data (with --key file)."
        ),
        click.option("--key", type=click.Choice(BACKENDS), help="Who keeps the key."),
    ):
        command = option(command)
    return command


@dataclass
class Asked:
    """A passphrase asked for at most once, and kept for the key it guards next.

    Args:
        session: asks.
        file: where it is; None: wherever the session's own is.
    """

    session: Session
    file: Path | None = None
    _phrase: str | None = field(default=None, repr=False)

    def __call__(self) -> str:
        """Return the passphrase."""
        if self._phrase is None:
            self._phrase = read_passphrase(self.file) if self.file else self.session.passphrase()
        return self._phrase


def check_file_choice(key: str | None, insecure_key_file: bool) -> None:
    """Refuse a key file unless it was asked for twice.

    Raises:
        UsageError: only one of the two was given.
    """
    if insecure_key_file != (key == "file"):
        hint = "A key file protects nothing from whoever can read this folder: give --key file --insecure-key-file."
        raise UsageError("--key file and --insecure-key-file go together.", hint=hint)


def protector(backend: str, phrase: Callable[[], str], params: Mapping[str, Any] | None = None) -> "Protector":
    """Return what wraps a data key.

    Args:
        backend: one of BACKENDS.
        phrase: called only for a passphrase.
        params: those of the guard before, when the new one shall be of the same kind.
    """
    from store.protectors import CREDENTIAL, Argon2Cost, KeyFile, OsKeyring, Passphrase, SystemdCredential

    if backend == "keyring":
        return OsKeyring()
    if backend == "systemd":
        return SystemdCredential((params or {}).get("name", CREDENTIAL))
    if backend == "file":
        return KeyFile()
    return Passphrase(phrase(), Argon2Cost.here())


def default_backend(session: Session) -> str:
    """Return where the key goes when nobody said: keyring, else systemd credential, else a passphrase.

    Raises:
        NotEligible: there is neither, and nobody to ask for a passphrase.
    """
    from store.protectors import SystemdCredential, keyring_usable

    if session.passphrase_file is not None:
        return "passphrase"
    if keyring_usable():
        return "keyring"
    if SystemdCredential().there(session.home):
        return "systemd"
    if sys.stdin.isatty():
        return "passphrase"
    hint = "Give --passphrase-file FILE, or accept --key file --insecure-key-file."
    raise NotEligible("This system has no usable keyring, and there is nobody to ask.", hint=hint, code="no_keyring")


def new_passphrase(file: Path | None, option: str = "--new-passphrase-file") -> str:
    """Return the first line of `file`, or what a person types twice.

    Raises:
        UsageError: there is neither file nor person.
    """
    if file is not None:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        hint = f"Give {option} FILE."
        raise UsageError("There is nobody to ask for a passphrase.", hint=hint, code="no_passphrase")
    secret: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return secret
