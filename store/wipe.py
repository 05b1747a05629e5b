"""Wiping a store: the keys first, then everything else."""

import contextlib
import shutil
from pathlib import Path

from store.errors import CorrigibleError
from store.files import shred, sync_folder, unwritable
from store.generation import alone, found, remove_generation
from store.keys import read_key_record
from store.paths import Home
from store.protectors import protector_for


def wipe_plan(home: Home) -> list[tuple[Path, int]]:
    """What `wipe` would remove: paths and their sizes in bytes."""
    return [(path, _size(path)) for path in [*_keys(home), *found(home), *_others(home)]]


def wipe(home: Home) -> list[Path]:
    """Remove the store for good; returns what was removed. Settings and backups elsewhere stay.

    The keys go first: a crash in between leaves nothing that can be read.

    Raises:
        Locked: another process has the store open.
        CorrigibleError: something could not be removed; calling again goes on.
    """
    gone = [path for path, _ in wipe_plan(home)]
    if not home.state.is_dir():
        return []
    with alone(home):
        try:
            with contextlib.suppress(CorrigibleError):
                record = read_key_record(home)
                protector_for(record.backend, record.params, None).forget(home, record.params)
            for path in _keys(home):
                shred(path)
            sync_folder(home.data)
            for folder in found(home):
                remove_generation(folder)
            for path in _others(home):
                shutil.rmtree(path) if path.is_dir() else shred(path)
        except OSError as error:
            raise unwritable(error) from None
    return gone


def _keys(home: Home) -> list[Path]:
    return sorted([*home.data.glob("key.json"), *home.data.glob("insecure-*.key")])


def _others(home: Home) -> list[Path]:
    """Anchors, logs and half-written files; locks stay, they hold nothing."""
    return sorted([*home.data.glob(".partial-*"), *home.state.glob("anchor-*"), *home.state.glob("log*")])


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )
