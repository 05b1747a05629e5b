"""What every command starts from: where the store is, how it is unlocked, and the model with its adapters.

Rooms are imported when asked for: a command that only looks at the store loads no model and no torch.
"""

import getpass
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from store.base import StoreBase
from store.errors import Locked, UsageError
from store.records import Slot

if TYPE_CHECKING:
    from cli.config import Config
    from feedback.engine import Engine
    from feedback.models import ModelFile
    from learner.policy import LearnPolicy
    from store.keys import Keys
    from store.paths import Home
    from store.store import Store

SLOTS: tuple[Slot, ...] = ("shared", "personal")  # the order in which adapters are applied


@dataclass(frozen=True)
class Session:
    """One run of the command: its folder, its secrets' source and its manner of output.

    Args:
        place: the folder for everything; None: CORRIGIBLE_HOME, else the platform's folders.
        passphrase_file: where the passphrase is; None: ask.
        as_json: write JSON.
    """

    place: Path | None = None
    passphrase_file: Path | None = None
    as_json: bool = False

    @cached_property
    def home(self) -> "Home":
        """Where everything lies."""
        from store.paths import Home

        return Home.locate(self.place)

    @cached_property
    def config(self) -> "Config":
        """The owner's settings."""
        from cli.config import load

        return load(self.home.config)

    def learn_policy(self) -> "LearnPolicy":
        """How this owner's adapters are trained and judged."""
        from learner.policy import LearnPolicy

        return LearnPolicy(protect_base=self.config.learner.protect_base)

    @property
    def interactive(self) -> bool:
        """Whether a person sits at stdin and can be asked."""
        return sys.stdin.isatty() and not self.as_json

    def passphrase(self) -> str:
        """Return the passphrase from the file or the person.

        Raises:
            Locked: neither is there.
        """
        if self.passphrase_file is not None:
            return read_passphrase(self.passphrase_file)
        if not sys.stdin.isatty():
            hint = "Give --passphrase-file FILE or set CORRIGIBLE_PASSPHRASE_FILE."
            raise Locked("The store is locked by a passphrase.", hint=hint)
        return getpass.getpass("Passphrase: ")

    @contextmanager
    def keys(self) -> Iterator["Keys"]:
        """Unlock the keys, and wipe them at the end."""
        from store.keys import unlock

        keys = unlock(self.home, passphrase=self.passphrase)
        try:
            yield keys
        finally:
            keys.wipe()

    @contextmanager
    def unlocked(self) -> Iterator[tuple["Store", "Keys"]]:
        """Open the store and keep its keys at hand, for work that a child process shares."""
        from store.store import Store

        with self.keys() as keys, Store.open(self.home, keys) as store:
            yield store, keys

    @contextmanager
    def store(self) -> Iterator[StoreBase]:
        """Unlock and open the store."""
        with self.unlocked() as (store, _):
            yield store

    def model(self, path: Path | None = None) -> "ModelFile":
        """Return the checked model: `path`, else the one of the settings, else the embedded one."""
        from feedback.models import check_model, embedded_model

        return check_model(path or self.config.model.path or embedded_model())

    @contextmanager
    def engine(self, store: StoreBase, path: Path | None = None) -> Iterator["Engine"]:
        """Load the model with the store's serving adapters."""
        from feedback.engine import Engine

        settings = self.config.model
        with Engine(self.model(path), context=settings.context, threads=settings.threads) as engine:
            refresh_stack(store, engine)
            yield engine


def served(store: StoreBase) -> list[str]:
    """Return the digests of the adapters the store serves, in order of application."""
    return [digest for slot in SLOTS if (digest := store.active(slot))]


def refresh_stack(store: StoreBase, engine: "Engine") -> bool:
    """Make `engine` serve what the store says for its model; return whether that was a change.

    While an adapter is on trial, it is drawn for its share of the calls.
    """
    from learner.live import stack_for
    from learner.material import served as serving

    wanted = stack_for(store, serving(store, engine), random.random()).stack
    if tuple(digest for digest, _ in wanted) == engine.stack:
        return False
    engine.set_stack(wanted)
    return True


def read_passphrase(path: Path) -> str:
    """Return the first line of `path`.

    Raises:
        UsageError: the file is empty or not text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError("The passphrase file is not text.", code="passphrase") from error
    if not lines or not lines[0]:
        raise UsageError("The passphrase file is empty.", code="passphrase")
    return lines[0]


def confirm(session: Session, what_goes: str, yes: bool) -> None:
    """Name what goes and ask, unless `yes` was said already.

    Raises:
        UsageError: there is nobody to ask.
        click.Abort: the person said no.
    """
    import click

    if yes:
        return
    if not session.interactive:
        raise UsageError(what_goes, hint="Say --yes to do it without being asked.", code="confirmation_needed")
    click.confirm(f"{what_goes} Go on?", abort=True, err=True)
