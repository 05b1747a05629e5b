"""Wiping a store: the keys first, then everything else."""

import contextlib
from pathlib import Path

from store.errors import CorrigibleError
from store.files import shred, sync_folder, unwritable
from store.generation import alone, remove_generation
from store.keys import read_key_record
from store.paths import Home
from store.protectors import protector_for


def wipe_plan(home: Home) -> list[tuple[Path, int]]:
    """What `wipe` would remove, in this order: paths and their sizes in bytes."""
    return [(path, _size(path)) for path in [*_keys(home), *_others(home)]]


def wipe(home: Home) -> list[Path]:
    """Remove everything in the data, state and runtime folders; returns what was removed.

    Settings, and backups elsewhere, stay. The keys go first: a crash in between leaves nothing that can be read.

    Raises:
        Locked: another process has the store open.
        CorrigibleError: something could not be removed; calling again goes on.
    """
    if not home.state.is_dir():
        return []
    with alone(home):
        keys, others = _keys(home), _others(home)
        try:
            with contextlib.suppress(CorrigibleError):
                record = read_key_record(home)
                protector_for(record.backend, record.params, None).forget(home, record.params)
            for path in keys:
                shred(path)
            if home.data.is_dir():
                sync_folder(home.data)
            for path in others:
                _remove(path)
        except OSError as error:
            raise unwritable(error) from None
    return [*keys, *others]


def _keys(home: Home) -> list[Path]:
    return sorted([*home.data.glob("key.json"), *home.data.glob("insecure-*.key")])


def _others(home: Home) -> list[Path]:
    """All else in the program's own folders; locks stay, they hold nothing and one is held now."""
    folders = dict.fromkeys(folder for folder in (home.data, home.state, home.runtime) if folder.is_dir())
    found = [path for folder in folders for path in sorted(folder.iterdir())]
    keep = {*_keys(home), *folders, home.config}
    return [path for path in found if path not in keep and path.suffix != ".lock"]


def _remove(path: Path) -> None:
    """Shred a file, or every file of a folder; a symbolic link only loses its name."""
    if path.is_dir() and not path.is_symlink():
        remove_generation(path)
    elif path.is_file() and not path.is_symlink():
        shred(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return path.lstat().st_size
