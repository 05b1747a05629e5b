"""The anchor: outside the database, it names the newest link of the chain.

SQLCipher notices a changed page but not a lost WAL tail or an older copy put back. The anchor does: the
database must reach at least as far as the anchor says, with the same head there.

The file has two slots written in turn, each with its own authentication code, so a torn write costs one slot.
It is written after the commit and flushed to disk at most once a second and at close: after a power cut it
may lag behind the database, never run ahead of it.
"""

import contextlib
import fcntl
import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from store.errors import CorrigibleError, IntegrityError
from store.files import create_private, sync_folder, unwritable
from store.protectors import fetch_secret, ring_entry, store_secret
from store.records import canonical
from store.secret import Secret

SLOT = 2048  # bytes; a slot is JSON, padded with spaces
SYNC_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One state of the chain."""

    seq: int
    head: str  # hex
    counts: dict[str, int] = field(default_factory=dict)  # rows written so far, by kind
    seals: str = ""  # digest of the page seals of the database file; empty while anybody writes
    broken: str = ""  # why learning and sharing stand still; empty: they do not


class Anchor:
    """The anchor file of one generation of the store.

    Args:
        path: the file.
        key: the ledger subkey.
    """

    def __init__(self, path: Path, key: Secret) -> None:
        self._path = path
        self._key = key
        self._handle: int | None = None
        self._synced = 0.0
        self._number = 0  # of the newest slot seen
        self._known: dict[bytes, tuple[int, Mark | None]] = {}  # the slots as last read or written, already checked
        self._thread = threading.Lock()

    def read(self) -> Mark | None:
        """The newest whole mark, or None when the file is missing or holds none."""
        try:
            with self._locked(create=False) as handle:
                return self._newest(handle)[0]
        except FileNotFoundError:
            return None

    def advance(self, make: Callable[[Mark | None], Mark | None]) -> None:
        """Replace the mark by `make(current)`, under the file's own lock; None leaves it.

        Raises:
            CorrigibleError: the file cannot be written.
        """
        try:
            with self._locked(create=True) as handle:
                current, slot = self._newest(handle)
                new = make(current)
                if new is not None:
                    os.pwrite(handle, self._seal(new), SLOT * (1 - slot))
                    self._sync_sometimes(handle)
        except OSError as error:
            raise unwritable(error) from None

    def close(self) -> None:
        """Flush and close the file."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    @contextlib.contextmanager
    def _locked(self, *, create: bool) -> Iterator[int]:
        with self._thread:
            handle = self._open(create)
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield handle
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)

    def _open(self, create: bool) -> int:
        if self._handle is None:
            try:
                self._handle = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            except FileNotFoundError:
                if not create:
                    raise
                self._handle = create_private(self._path)
                os.pwrite(self._handle, b" " * (2 * SLOT), 0)
                os.fsync(self._handle)
                sync_folder(self._path.parent)
        return self._handle

    def _sync_sometimes(self, handle: int) -> None:
        now = time.monotonic()
        if now - self._synced >= SYNC_SECONDS:
            os.fsync(handle)
            self._synced = now

    def _newest(self, handle: int) -> tuple[Mark | None, int]:
        """The newest whole mark and the slot it stands in."""
        raw = os.pread(handle, 2 * SLOT, 0)
        slots = [raw[start : start + SLOT] for start in (0, SLOT)]
        self._known = {text: self._known.get(text) or unseal(text, self._key) for text in slots}
        marks = [self._known[text] for text in slots]
        found = [(number, mark, slot) for slot, (number, mark) in enumerate(marks) if mark is not None]
        if not found:
            return None, 1
        self._number, mark, slot = max(found, key=lambda item: item[0])
        return mark, slot

    def _seal(self, mark: Mark) -> bytes:
        self._number += 1
        text = seal(mark, self._number, self._key).ljust(SLOT)
        self._known[text] = self._number, mark
        return text


class Ring:
    """A second anchor in the OS keyring: it catches a thief who puts back old copies of both files.

    Slow to write, so it follows at close and after every spend of privacy budget.
    """

    def __init__(self, entry: str, key: Secret) -> None:
        self._entry = ring_entry(entry)
        self._key = key

    def read(self) -> Mark | None:
        """The mark in the keyring, or None when there is none to be had."""
        text = fetch_secret(self._entry)
        return unseal(text.encode(), self._key)[1] if text else None

    def write(self, mark: Mark) -> None:
        """Put `mark` into the keyring; a keyring that refuses costs the second anchor, not the store."""
        with contextlib.suppress(CorrigibleError):
            store_secret(self._entry, seal(mark, 0, self._key).decode())


def seal(mark: Mark, number: int, key: Secret) -> bytes:
    """`mark` as authenticated text; `number` orders the writings.

    Raises:
        IntegrityError: it does not fit into a slot.
    """
    body = {"number": number, **asdict(mark)}
    body["mac"] = hmac.new(key, b"anchor\0" + canonical(body), "sha256").hexdigest()
    text = canonical(body)
    if len(text) > SLOT:
        raise IntegrityError("The anchor does not fit into its slot.", code="anchor")
    return text


def unseal(text: bytes, key: Secret) -> tuple[int, Mark | None]:
    """The number and mark in `text`; (0, None) when it is not whole or not ours."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        body = json.loads(text)
        given = body.pop("mac")
        if hmac.compare_digest(given, hmac.new(key, b"anchor\0" + canonical(body), "sha256").hexdigest()):
            number = body.pop("number")
            return number, Mark(**body)
    return 0, None
