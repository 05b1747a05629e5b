"""Generations: a database, its artefacts and its anchor under one data key.

Creation, rotation and restore build a draft, then key.json names it in one rename, then the draft gets its
final name and older generations are shredded. A crash anywhere leaves exactly one generation that opens;
`settle` finishes or sweeps up what the crash left.
"""

import re
import shutil
from pathlib import Path

from store.anchor import Anchor, Mark
from store.chain import genesis
from store.engine import checkpoint, open_engine
from store.errors import IntegrityError, UsageError
from store.files import clear_partials, private_folder, shred, sync_file, sync_folder, unwritable
from store.keys import KeyRecord, Keys
from store.locks import FileLock
from store.migrate import migrate
from store.paths import Home

PATIENCE = 5.0  # seconds
DATABASE = "store.db"
ARTEFACTS = "artefacts"
_NAME = re.compile(r"store-(\d+)(\.new)?")


def alone(home: Home) -> FileLock:
    """The lock that no open store allows: rotation, restore, migration, wipe."""
    return FileLock(home.lock("store"), "the store")


def shared(home: Home) -> FileLock:
    """The lock every open store holds; it waits out another process that is just closing."""
    return FileLock(home.lock("store"), "the store", shared=True, patience=PATIENCE)


def refuse_existing(home: Home) -> None:
    """Raise UsageError when there is already a store, or the remains of one whose key.json is gone."""
    if home.key_file.exists():
        raise UsageError("There is already a store here.", hint="`corrigible status` shows it.", code="exists")
    if any(not draft for _, draft in found(home).values()):
        raise UsageError(
            "There is a store here whose key.json is gone.",
            hint="Put key.json back from a backup, or remove all with `corrigible wipe`.",
            code="orphan_store",
        )


def build_empty(home: Home, number: int, keys: Keys) -> None:
    """Build the draft of an empty generation and its anchor, durably."""
    draft = home.draft(number)
    shutil.rmtree(draft, ignore_errors=True)
    private_folder(draft)
    private_folder(draft / ARTEFACTS)
    engine = open_engine(draft / DATABASE, keys.secret("database"), create=True)
    try:
        migrate(engine, None)
        checkpoint(engine)
    finally:
        engine.dispose()
    write_anchor(home, number, keys, Mark(0, genesis(keys.sub("ledger")).hex()))
    sync_draft(home, number)


def write_anchor(home: Home, number: int, keys: Keys, mark: Mark) -> None:
    """Write the first mark of a generation's anchor, durably."""
    home.anchor(number).unlink(missing_ok=True)
    anchor = Anchor(home.anchor(number), keys.sub("ledger"))
    anchor.advance(lambda _: mark)
    anchor.close()


def sync_draft(home: Home, number: int) -> None:
    """Make a finished draft durable before key.json names it."""
    draft = home.draft(number)
    for path in (*draft.iterdir(), *(draft / ARTEFACTS).iterdir()):
        if path.is_file():
            sync_file(path)
    for folder in (draft / ARTEFACTS, draft, home.data, home.state):
        sync_folder(folder)


def settle(home: Home, record: KeyRecord) -> None:
    """Finish a change of generation that key.json has committed, and remove every other generation.

    Raises:
        Locked: there is something to do and another process has the store open.
        IntegrityError: the generation key.json names is not there.
    """
    here = home.generation(record.generation)
    strays = set(home.data.glob("insecure-*.key")) - {home.insecure_key(str(record.params.get("entry")))}
    others = [path for path, (number, draft) in found(home).items() if draft or number != record.generation]
    if not others and not strays and here.is_dir():
        return
    with alone(home):
        try:
            if not here.exists() and home.draft(record.generation).is_dir():
                home.draft(record.generation).rename(here)
                sync_folder(home.data)
            if here.is_dir():
                _sweep(home, record)
        except OSError as error:
            raise unwritable(error) from None
    if not here.is_dir():
        raise IntegrityError("The store's folder is missing.", hint="Restore a backup.", code="store_missing")


def found(home: Home) -> dict[Path, tuple[int, bool]]:
    """Generation folders on disk: path to number and whether it is a draft."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in home.data.iterdir()) if home.data.is_dir() else ()
    return {path: (int(match[1]), bool(match[2])) for path, match in matches if match}


def remove_generation(folder: Path) -> None:
    """Shred the files of a generation and remove it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            shred(path)
    shutil.rmtree(folder, ignore_errors=True)


def _sweep(home: Home, record: KeyRecord) -> None:
    """Remove all generations but the current one, their anchors and keys, and half-written files."""
    current = record.generation
    for path, (number, draft) in found(home).items():
        if draft or number != current:
            remove_generation(path)
    for anchor in home.state.glob("anchor-*"):
        if anchor != home.anchor(current):
            anchor.unlink(missing_ok=True)
    clear_partials(home.generation(current) / ARTEFACTS)
    clear_partials(home.data)
    for key in home.data.glob("insecure-*.key"):
        if key != home.insecure_key(str(record.params.get("entry"))):
            shred(key)
