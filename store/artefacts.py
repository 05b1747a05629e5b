"""Adapters, checkpoints and other byte strings at rest: sealed, content-addressed, whole or absent.

A file's name is a keyed hash of the digest, so the folder says nothing about what it holds.
"""

import hmac
from collections.abc import Iterable
from pathlib import Path

from store.errors import IntegrityError
from store.files import PARTIAL, shred, unwritable, write_atomic
from store.records import HASH_TAG, digest
from store.sealed import seal, unseal
from store.secret import Secret


class Artefacts:
    """The artefact folder of one generation.

    Args:
        folder: where the sealed files lie.
        key: the artefacts subkey.
    """

    def __init__(self, folder: Path, key: Secret) -> None:
        self._folder = folder
        self._key = key

    def put(self, data: bytes) -> str:
        """Seal `data` and return its digest; the same data twice is stored once, and anew where the file is damaged."""
        name = digest(data)
        path = self._path(name)
        try:
            self.get(name)
        except IntegrityError:
            write_atomic(path, seal([data], self._key, path.name))
        return name

    def get(self, name: str) -> bytes:
        """The bytes whose digest is `name`.

        Raises:
            IntegrityError: missing (``artefact_missing``), changed or cut (``artefact_changed``).
        """
        try:
            data = self.read(self._path(name))
        except FileNotFoundError:
            raise _unusable(name, "missing") from None
        except IntegrityError:
            raise _unusable(name, "changed") from None
        except OSError as error:
            raise unwritable(error) from None
        if digest(data) != name:
            raise _unusable(name, "changed")
        return data

    def drop(self, name: str) -> None:
        """Remove the artefact; missing is fine."""
        try:
            shred(self._path(name))
        except OSError as error:
            raise unwritable(error) from None

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that have no file."""
        return [name for name in names if not self._path(name).exists()]

    def paths(self) -> list[Path]:
        """All whole files in the folder."""
        return sorted(path for path in self._folder.iterdir() if not path.name.startswith(PARTIAL))

    def read(self, path: Path) -> bytes:
        """The bytes in one of `paths()`. Raises IntegrityError when it was changed, cut or renamed."""
        with path.open("rb") as file:
            return b"".join(unseal(file, self._key, path.name))

    def _path(self, name: str) -> Path:
        return self._folder / hmac.new(self._key, name.encode(), "sha256").hexdigest()[:40]


def short(name: str) -> str:
    """The first hex digits of a digest, for messages."""
    return name.removeprefix(HASH_TAG)[:12]


def _unusable(name: str, how: str) -> IntegrityError:
    return IntegrityError(
        f"The artefact {short(name)} is {how}.", hint="Restore a backup or roll back.", code=f"artefact_{how}"
    )
