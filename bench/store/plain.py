"""The yardstick: the same rows and the same index in plain sqlite3, WAL and FULL, with nothing in between."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, time REAL NOT NULL,
  subject TEXT NOT NULL, body TEXT, content BLOB NOT NULL, head BLOB NOT NULL);
CREATE INDEX records_kind ON records (kind);
CREATE INDEX records_subject ON records (subject) WHERE subject <> '';
CREATE VIEW texts AS SELECT seq, json_extract(body, '$.messages[#-1].content') || char(10)
  || json_extract(body, '$.answer') AS text FROM records;
CREATE VIRTUAL TABLE words USING fts5(text, content='texts', content_rowid='seq',
  tokenize='unicode61 remove_diacritics 2');
"""

Row = tuple[int, str, str, float, str, str, bytes, bytes]


class Plain:
    """A plain database with the store's tables."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(SCHEMA)

    def add_all(self, rows: Sequence[Row]) -> None:
        """Insert and index rows in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._connection.execute(
            "INSERT INTO words (rowid, text) SELECT seq, text FROM texts WHERE seq BETWEEN ? AND ?",
            (rows[0][0], rows[-1][0]),
        )
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
