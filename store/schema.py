"""The tables as the newest migration leaves them, for queries; `store.migrations` is what creates them.

One append-only table holds every record: a row is a link of the chain, and deleting blanks its text and
identity but keeps the link. `words` is the full-text index over the live rows, without a copy of the text.
"""

from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

records = Table(
    "records",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("subject", String, nullable=False),  # id of the interaction a correction or rating speaks of
    Column("body", String),  # canonical JSON; NULL once removed
    Column("content", LargeBinary, nullable=False),  # keyed hash of kind and body
    Column("head", LargeBinary, nullable=False),  # keyed hash chained to the row before
)

HEAD_REVISION = "r0002"
