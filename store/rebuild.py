"""Writes a store's content into a fresh generation: the one way of rotation, salvage and restore.

Rows keep their sequence numbers; their hashes are made anew under the new key. The hash of a removed row's
text stays as it is: the text is gone, and its old key too.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from store.anchor import Mark
from store.append import append
from store.artefacts import Artefacts
from store.chain import content_hash, genesis, head_hash
from store.codec import encode
from store.engine import checkpoint, open_engine, reading, writing
from store.errors import CorrigibleError
from store.generation import ARTEFACTS, DATABASE, build_empty, sync_draft, write_anchor
from store.keys import Keys
from store.paths import Home
from store.records import Record
from store.secret import Secret

BATCH = 500  # rows held in memory at once


class Content(NamedTuple):
    """One row without its head."""

    seq: int
    id: str
    kind: str
    time: float
    subject: str
    body: str | None
    content: bytes


def rebuild(
    home: Home,
    number: int,
    keys: Keys,
    rows: Iterable[Content],
    artefacts: Iterable[bytes],
    more: Sequence[Record] = (),
) -> None:
    """Build the draft of generation `number` under `keys` with this content, durable and with its anchor.

    Args:
        home: of the store.
        number: of the new generation.
        keys: of the new generation.
        rows: what it shall hold, oldest first.
        artefacts: plain bytes.
        more: records to add at the end where `rows` lacks them.
    """
    build_empty(home, number, keys)
    draft = home.draft(number)
    engine = open_engine(draft / DATABASE, keys.secret("database"))
    try:
        with writing(engine) as connection:
            mark = _fill(connection, keys.sub("ledger"), rows)
            added = append(connection, keys.sub("ledger"), [encode(record) for record in more], mark.seq)
            if added is not None:
                mark = Mark(added.last, added.head.hex(), dict(Counter(mark.counts) + Counter(added.counts)))
        checkpoint(engine)
    finally:
        engine.dispose()
    shelf = Artefacts(draft / ARTEFACTS, keys.sub("artefacts"))
    for data in artefacts:
        shelf.put(data)
    write_anchor(home, number, keys, mark)
    sync_draft(home, number)


def rows_of(engine: Engine) -> Iterator[Content]:
    """All rows, oldest first. Raises IntegrityError at the first unreadable page."""
    with reading(engine) as connection:
        for row in connection.exec_driver_sql(f"SELECT {', '.join(Content._fields)} FROM records ORDER BY seq"):
            yield Content._make(row)


def readable_rows(engine: Engine, last: int) -> Iterator[Content]:
    """Every row up to `last` that can still be read, oldest first."""
    query = f"SELECT {', '.join(Content._fields)} FROM records NOT INDEXED WHERE seq = ?"
    for seq in range(1, last + 1):
        try:
            with reading(engine) as connection:
                row = _one_row(connection, query, seq)
        except CorrigibleError:
            continue
        if row is not None:
            yield Content._make(row)


def _one_row(connection: Connection, query: str, seq: int) -> Row[Any] | None:
    """The row `seq`; SQLCipher lets a connection that met a bad page read no more, so that one goes."""
    try:
        return connection.exec_driver_sql(query, (seq,)).one_or_none()
    except DBAPIError:
        connection.invalidate()
        raise


def readable_artefacts(shelf: Artefacts) -> Iterator[bytes]:
    """The bytes of every artefact that is whole."""
    for path in shelf.paths():
        try:
            yield shelf.read(path)
        except (CorrigibleError, OSError):
            continue


def _fill(connection: Connection, key: Secret, rows: Iterable[Content]) -> Mark:
    """Insert `rows`, re-chained under `key`, and index their text; returns the mark of the last."""
    head, seq = genesis(key), 0
    counts: Counter[str] = Counter()
    source = iter(rows)
    while some := list(islice(source, BATCH)):
        links = []
        for row in some:
            body = row.body
            content = row.content if body is None else content_hash(key, row.kind, body.encode())
            head, seq = head_hash(key, head, row.seq, row.kind, content), row.seq
            links.append((seq, row.id, row.kind, row.time, row.subject, body, content, head))
            counts[row.kind] += 1
        connection.exec_driver_sql("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", links)
    connection.exec_driver_sql("INSERT INTO words (rowid, text) SELECT seq, text FROM texts")
    return Mark(seq, head.hex(), dict(counts))
