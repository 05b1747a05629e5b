"""Compares the database with its anchor and keeps the anchor moving.

What is found at opening is remembered in the anchor itself, so damage stays known until the owner accepts it,
even when new records are written meanwhile.
"""

import hmac
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine

from store.anchor import Anchor, Mark
from store.append import Appended, kind_counts, tail
from store.base import Problem
from store.engine import reading
from store.secret import Secret

PAGE_BYTES = 4096
SEAL_BYTES = 64
ANCHOR_MISSING = "The anchor of this store is missing or damaged."


def compare(engine: Engine, mark: Mark | None, key: Secret) -> tuple[Problem | None, dict[str, int]]:
    """What the anchor says is wrong with the database, and how many records of each kind are gone.

    Read the mark before calling: the database may only have moved on since.
    """
    with reading(engine) as connection:
        newest, _ = tail(connection, key)
        if mark is None:
            return Problem("anchor_missing", ANCHOR_MISSING), {}
        if newest < mark.seq:
            lost = Counter(mark.counts)
            lost.subtract(kind_counts(connection, 1, newest))
            missing = {kind: number for kind, number in sorted(lost.items()) if number > 0}
            return Problem("missing", _lost_words(newest + 1, mark.seq, missing), newest + 1, mark.seq), missing
        head = connection.exec_driver_sql("SELECT head FROM records WHERE seq = ?", (mark.seq,)).scalar()
    if mark.seq and (head is None or head.hex() != mark.head):
        return Problem("foreign", "The database is not the one this anchor belongs to.", mark.seq, mark.seq), {}
    return None, {}


def inspect_at_open(engine: Engine, anchor: Anchor, key: Secret, second: Mark | None = None) -> Mark:
    """The mark to go on with: caught up with the database, or marked broken when they disagree.

    Args:
        engine: on the database.
        anchor: its anchor.
        key: the ledger subkey.
        second: the keyring's mark, where there is one; it counts when it is further than the anchor.
    """
    found = anchor.read()
    if second is not None and (found is None or second.seq > found.seq):
        found = second
    problem, _ = compare(engine, found, key)
    if problem is None and found is not None:
        with reading(engine) as connection:
            newest, head = tail(connection, key)
            if newest <= found.seq:
                return found
            ahead = Appended(found.seq + 1, newest, head, kind_counts(connection, found.seq + 1, newest))
        advance(engine, anchor, ahead)
        return found
    with reading(engine) as connection:
        newest, head = tail(connection, key)
    words = (found.broken if found else "") or (problem.message if problem else "")
    base = found if found and found.seq >= newest else Mark(newest, head.hex(), found.counts if found else {})
    broken = replace(base, broken=words)
    anchor.advance(lambda _: broken)
    return broken


def advance(engine: Engine, anchor: Anchor, added: Appended) -> None:
    """Move the anchor to what was committed, unless another process already moved it further."""

    def make(current: Mark | None) -> Mark | None:
        if current is None:
            return Mark(added.last, added.head.hex(), dict(added.counts), broken=ANCHOR_MISSING)
        if current.seq >= added.last:
            return None
        counts = Counter(current.counts)
        if current.seq + 1 == added.first:
            counts.update(added.counts)
        else:
            with reading(engine) as connection:
                counts.update(kind_counts(connection, current.seq + 1, added.last))
        return Mark(added.last, added.head.hex(), dict(counts), broken=current.broken)

    anchor.advance(make)


def seal_pages(database: Path, anchor: Anchor, key: Secret) -> None:
    """Note in the anchor what every page of the closed database looks like; the caller is alone with it."""
    seals = page_seals(database, key)
    anchor.advance(lambda mark: replace(mark, seals=seals) if mark else None)


def changed_at_rest(engine: Engine, database: Path, anchor: Anchor, key: Secret) -> bool:
    """Whether a page of a store that was properly closed, and not written since, is not what it was.

    This finds an old page put back where nothing else can: one that authenticates and contradicts nothing.
    """
    before = anchor.read()
    if before is None or not before.seals:
        return False
    differs = page_seals(database, key) != before.seals
    with reading(engine) as connection:
        newest, _ = tail(connection, key)
    return differs and newest == before.seq and anchor.read() == before


def page_seals(database: Path, key: Secret) -> str:
    """Keyed digest of the authentication codes of all pages, in order.

    SQLCipher ends each page with 64 bytes of HMAC over content and page number, so these stand for the pages.
    """
    digest = hmac.new(key, b"seals\0", "sha256")
    with database.open("rb") as file:
        while block := file.read(256 * PAGE_BYTES):
            for end in range(PAGE_BYTES, len(block) + 1, PAGE_BYTES):
                digest.update(block[end - SEAL_BYTES : end])
            digest.update(len(block).to_bytes(8, "big"))
    return digest.hexdigest()


def _lost_words(first: int, last: int, missing: dict[str, int]) -> str:
    """The sentence that says what is missing."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in missing.items())
    return f"Records {first} to {last} are missing" + (f" ({kinds})." if kinds else ".")
