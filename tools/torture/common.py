"""What the tortures share: a store to hurt, a writer that acknowledges, and a check of what is left."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from store.errors import CorrigibleError
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Correction, Interaction, Message
from store.store import Store

MODEL = "sha256:" + "0" * 64


@dataclass
class Outcome:
    """What one torture found; green when `bad` is empty."""

    name: str
    cycles: int = 0
    facts: dict[str, float | int | str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def add(self, name: str, amount: float = 1) -> None:
        """Count something."""
        self.facts[name] = float(self.facts.get(name, 0)) + amount

    def words(self) -> str:
        """One line for people."""
        facts = ", ".join(f"{value:,.4g} {name}" if isinstance(value, float) else f"{name}: {value}"
                          for name, value in self.facts.items())  # fmt: skip
        verdict = "ok" if not self.bad else f"FAILED ({len(self.bad)}): {'; '.join(self.bad[:5])}"
        return f"{self.name}: {self.cycles:,} cycles, {facts}: {verdict}"


def interaction(number: int, text: str = "", size: int = 300) -> Interaction:
    """The `number`-th interaction, with about `size` bytes of text."""
    request = text or f"request number {number}"
    return Interaction(
        messages=(Message("user", request),),
        answer=f"answer {number} ".ljust(size, "."),
        model=MODEL,
        time=float(number),
    )


def correction(of: Interaction, number: int, text: str = "") -> Correction:
    """A correction of `of`."""
    return Correction(interaction=of.id, corrected=text or f"corrected {number}", time=float(number))


def new_home(folder: Path, rows: int = 0) -> Home:
    """A home with a closed store of `rows` interactions."""
    home = Home.at(folder)
    with Store.create(home, KeyFile()) as store:
        store.add_all([interaction(number) for number in range(rows)])
    return home


def reopen(home: Home) -> Store:
    """Unlock by the key file and open."""
    keys = unlock(home)
    try:
        return Store.open(home, keys)
    finally:
        keys.wipe()


def in_child(work: Callable[[int], None]) -> tuple[int, int]:
    """Run `work(descriptor to write acknowledgements to)` in a forked child; returns its id and our end."""
    mine, its = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mine)
        try:
            work(its)
        finally:
            os._exit(0)
    os.close(its)
    return child, mine


def acknowledged(descriptor: int) -> list[str]:
    """All whole lines a child wrote before it went; closes the descriptor."""
    raw = b""
    while part := os.read(descriptor, 65536):
        raw += part
    os.close(descriptor)
    return raw.decode().split("\n")[:-1]


def lost(store: Store, ids: set[str]) -> set[str]:
    """Those of `ids` that the store does not have."""
    kinds = (Interaction, Correction)
    return ids - {record.id for kind in kinds for record in store.all(kind)}  # type: ignore[type-var]


def snapshot(home: Home, folder: Path) -> None:
    """Copy a home."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(home.root, folder, symlinks=True)


def found_wrong(home: Home, keys: Keys) -> str:
    """What opening and verifying says is wrong; empty when nothing is."""
    try:
        with Store.open(home, keys) as store:
            report = store.verify()
            return store.damage or "; ".join(problem.code for problem in report.problems)
    except CorrigibleError as error:
        return error.code
