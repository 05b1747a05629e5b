"""The chain: every row is bound to all rows before it by keyed hashes.

`content` binds a row's kind and text, `head` binds content, position and the head before. Both are
HMAC-SHA256 under the ledger subkey, so a removed text can be neither guessed from what stays nor forged.
Pure functions; the store supplies the rows.
"""

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from store.codec import record_id
from store.records import RECORD_TYPES, Record
from store.secret import Secret

GENESIS = b"corrigible genesis"
GONE = "removed:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal(Record):
    """The owner removed the text of these rows; their links stay."""

    rows: tuple[int, ...]  # sequence numbers
    why: str  # "owner" or "retention"
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance(Record):
    """The owner saw what is missing or altered and goes on without it."""

    missing: tuple[tuple[int, int], ...]  # first and last sequence number of each gap
    altered: tuple[int, ...]
    time: float


KINDS: dict[str, type[Record]] = RECORD_TYPES | {"Removal": Removal, "Acceptance": Acceptance}


@dataclass(frozen=True, slots=True)
class Row:
    """One link as stored."""

    seq: int
    id: str
    kind: str
    body: str | None
    content: bytes
    head: bytes


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing wrong with the chain. `first` to `last` are sequence numbers, both included."""

    code: str  # missing, altered, vanished, reappeared
    first: int
    last: int


def genesis(key: Secret) -> bytes:
    """The head before the first row."""
    return hmac.digest(key, GENESIS, "sha256")


def content_hash(key: Secret, kind: str, body: bytes) -> bytes:
    """Keyed hash of one row's kind and text."""
    return hmac.digest(key, b"content\0" + kind.encode() + b"\0" + body, "sha256")


def head_hash(key: Secret, before: bytes, seq: int, kind: str, content: bytes) -> bytes:
    """Keyed hash of one row and, through `before`, of all rows before it."""
    return hmac.digest(key, b"head\0" + before + seq.to_bytes(8, "big") + kind.encode() + b"\0" + content, "sha256")


def gone_id(seq: int) -> str:
    """What replaces the id of a removed row: unique, as the same text may be told and removed again, and not of it."""
    return f"{GONE}{seq}"


def flaws(rows: Iterable[Row], key: Secret, decoded: Iterable[Removal | Acceptance]) -> Iterator[Flaw]:
    """Everything wrong with `rows`, in order of sequence, less what the owner accepted.

    Args:
        rows: all rows, oldest first.
        key: the ledger subkey.
        decoded: the Removal and Acceptance entries among them.
    """
    removed, missing, altered = _allowances(decoded)
    before, last = genesis(key), 0
    for row in rows:
        if row.seq != last + 1 and (last + 1, row.seq - 1) not in missing:
            yield Flaw("missing", last + 1, row.seq - 1)
        gap = row.seq != last + 1
        linked = head_hash(key, before, row.seq, row.kind, row.content) == row.head
        if row.seq not in altered and (found := _row_flaw(row, key, removed, linked or gap)):
            yield Flaw(found, row.seq, row.seq)
        before, last = row.head, row.seq


def _row_flaw(row: Row, key: Secret, removed: set[int], linked: bool) -> str:
    """The word for what is wrong with one row, empty when nothing is."""
    if not linked:
        return "altered"
    if row.body is None:
        return "" if row.seq in removed and row.id in (gone_id(row.seq), GONE + row.content.hex()) else "vanished"
    body = row.body.encode()
    if row.content != content_hash(key, row.kind, body) or row.id != record_id(row.kind, body):
        return "altered"
    return "reappeared" if row.seq in removed else ""


def _allowances(decoded: Iterable[Removal | Acceptance]) -> tuple[set[int], set[tuple[int, int]], set[int]]:
    """Removed rows, accepted gaps and accepted alterations."""
    removed: set[int] = set()
    missing: set[tuple[int, int]] = set()
    altered: set[int] = set()
    for entry in decoded:
        if isinstance(entry, Removal):
            removed.update(entry.rows)
        else:
            missing.update((first, last) for first, last in entry.missing)
            altered.update(entry.altered)
    return removed, missing, altered
