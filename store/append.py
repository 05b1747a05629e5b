"""Adds links to the chain and blanks removed ones, inside a transaction of the caller's.

Plain driver statements rather than the expression language: this is the path every record waits for.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from store.chain import content_hash, genesis, gone_id, head_hash
from store.codec import Encoded
from store.secret import Secret


@dataclass(frozen=True, slots=True)
class Appended:
    """What one transaction added: the newest link and how many rows of each kind since `first`."""

    first: int
    last: int
    head: bytes
    counts: dict[str, int]


def tail(connection: Connection, key: Secret) -> tuple[int, bytes]:
    """Sequence number and head of the newest link."""
    row = connection.exec_driver_sql("SELECT seq, head FROM records ORDER BY seq DESC LIMIT 1").one_or_none()
    return (row[0], row[1]) if row else (0, genesis(key))


def append(connection: Connection, key: Secret, entries: Sequence[Encoded], floor: int = 0) -> Appended | None:
    """Add those of `entries` that are not there yet; None when all are.

    Args:
        connection: inside a write transaction.
        key: the ledger subkey.
        entries: in the order they shall have.
        floor: sequence numbers up to here are spent, even when the rows are lost.
    """
    fresh, seq, head = _unknown(connection, key, entries)
    if not fresh:
        return None
    first = max(seq, floor) + 1
    rows = []
    for seq, entry in enumerate(fresh, first):
        content = content_hash(key, entry.kind, entry.body)
        head = head_hash(key, head, seq, entry.kind, content)
        rows.append((seq, entry.id, entry.kind, entry.time, entry.subject, entry.body.decode(), content, head))
    connection.exec_driver_sql("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.exec_driver_sql(
        "INSERT INTO words (rowid, text) SELECT seq, text FROM texts WHERE seq BETWEEN ? AND ?",
        (first, seq),
    )
    return Appended(first, seq, head, Counter(entry.kind for entry in fresh))


def blank(connection: Connection, seqs: Sequence[int]) -> None:
    """Take text, identity, time and index entries from rows; their links stay."""
    chosen = json.dumps(list(seqs))
    connection.exec_driver_sql(
        "INSERT INTO words (words, rowid, text) SELECT 'delete', seq, text FROM texts "
        "WHERE seq IN (SELECT value FROM json_each(?))",
        (chosen,),
    )
    connection.exec_driver_sql(
        "UPDATE records SET id = ?, time = 0, subject = '', body = NULL WHERE seq = ?",
        [(gone_id(seq), seq) for seq in seqs],
    )


def kind_counts(connection: Connection, first: int, last: int) -> dict[str, int]:
    """Rows of each kind with sequence numbers from `first` to `last`."""
    rows = connection.exec_driver_sql(
        "SELECT kind, count(*) FROM records WHERE seq BETWEEN ? AND ? GROUP BY kind", (first, last)
    )
    return {str(kind): int(number) for kind, number in rows}


def _unknown(connection: Connection, key: Secret, entries: Sequence[Encoded]) -> tuple[list[Encoded], int, bytes]:
    """Each entry whose id is not stored, once, and the newest link; one statement, as every record waits for it."""
    wanted = {entry.id: entry for entry in entries}
    rows = connection.exec_driver_sql(
        "SELECT seq, head, id FROM records WHERE id IN (SELECT value FROM json_each(?)) "
        "UNION ALL SELECT * FROM (SELECT seq, head, '' FROM records ORDER BY seq DESC LIMIT 1)",
        (json.dumps(list(wanted)),),
    ).all()
    seq, head = max(((seq, head) for seq, head, _ in rows), default=(0, genesis(key)))
    for _, _, known in rows:
        wanted.pop(known, None)
    return list(wanted.values()), seq, head
