"""The store's twin in memory: the same surface and behaviour, nothing on disk.

For tests and simulations. It has no chain, no anchor and no key, so `verify` has nothing to find.
"""

import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from store.base import (
    PREFIX_LETTERS,
    REMOVABLE,
    Report,
    StoreBase,
    check_fields,
    id_prefix,
    not_removable,
    one_match,
    words_of,
)
from store.codec import encode
from store.errors import IntegrityError, Locked
from store.records import Correction, Interaction, Record, digest

R = TypeVar("R", bound=Record)


class MemoryStore(StoreBase):
    """Holds records in dictionaries; see `StoreBase` for what each method promises."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}  # by id, oldest first
        self._artefacts: dict[str, bytes] = {}
        self._busy: set[str] = set()
        self._guard = threading.RLock()

    @property
    def damage(self) -> str:
        return ""

    def add_all(self, records: Iterable[Record]) -> list[str]:
        pairs = [(encode(record).id, record) for record in records]
        with self._guard:
            for id, record in pairs:
                self._records.setdefault(id, record)
        return [id for id, _ in pairs]

    def get(self, kind: type[R], id: str) -> R:
        prefix = id_prefix(id)
        return one_match([record for key, record in self._of(kind) if key.startswith(prefix)], kind.__name__)

    def all(self, kind: type[R], *, since: float | None = None, limit: int | None = None) -> list[R]:
        found = [record for _, record in self._of(kind) if since is None or _time(record) >= since]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def count(self, kind: type[Record]) -> int:
        return len(self._of(kind))

    def last(self, kind: type[R], **equal: object) -> R | None:
        check_fields(kind, equal)
        matches = (
            record
            for _, record in reversed(self._of(kind))
            if all(getattr(record, name) == value for name, value in equal.items())
        )
        return next(matches, None)

    def remove_all(self, ids: Iterable[str], *, why: str = "owner") -> list[str]:  # noqa: ARG002 - no chain to note it
        with self._guard:
            doomed = list(dict.fromkeys(gone for id in ids for gone in self._with_dependents(id_prefix(id))))
            for id in doomed:
                del self._records[id]
        return doomed

    def search(self, text: str, limit: int = 20) -> list[Interaction]:
        *whole, last = (_fold(word) for word in words_of(text))
        found: dict[str, None] = {}
        for id, record in reversed(list(self._records.items())):
            words = _words(record)
            open_end = len(last) >= PREFIX_LETTERS and any(word.startswith(last) for word in words)
            if set(whole) <= words and (open_end or last in words):
                found[record.interaction if isinstance(record, Correction) else id] = None
        return [self.get(Interaction, id) for id in list(found)[:limit]]

    def put_artefact(self, data: bytes) -> str:
        self._artefacts[digest(data)] = data
        return digest(data)

    def artefact(self, digest: str) -> bytes:
        if digest not in self._artefacts:
            raise IntegrityError("The artefact is missing.", code="artefact_missing")
        return self._artefacts[digest]

    def drop_artefact(self, digest: str) -> None:
        self._artefacts.pop(digest, None)

    def verify(self) -> Report:
        return Report(len(self._records))

    def accept_damage(self) -> Report:
        return self.verify()

    def lock(self, name: str) -> AbstractContextManager[object]:
        return self._lock(name)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with self._guard:
            if name in self._busy:
                raise Locked(f"Another process is using the {name} lock.", code="busy")
            self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)

    def close(self) -> None:
        """Nothing to let go of; the records stay readable."""

    def _of(self, kind: type[R]) -> list[tuple[str, R]]:
        with self._guard:
            return [(id, record) for id, record in self._records.items() if type(record) is kind]

    def _with_dependents(self, prefix: str) -> list[str]:
        id = one_match([id for id in self._records if id.startswith(prefix)], "record")
        if type(self._records[id]).__name__ not in REMOVABLE:
            raise not_removable(type(self._records[id]).__name__)
        return [id, *(key for key, record in self._records.items() if getattr(record, "interaction", "") == id)]


def _time(record: Record) -> float:
    return float(getattr(record, "time"))  # noqa: B009 - every stored record has one


def _words(record: Record) -> set[str]:
    """The searchable words of a record."""
    if isinstance(record, Interaction):
        text = f"{record.messages[-1].content}\n{record.answer}" if record.messages else record.answer
    elif isinstance(record, Correction):
        text = f"{record.corrected}\n{record.reason}"
    else:
        return set()
    return set("".join(letter if letter.isalnum() else " " for letter in _fold(text)).split())


def _fold(text: str) -> str:
    """Lower case without accents, as the full-text index folds."""
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
