"""The append-only table of records."""

from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `records` and the indexes that lookups by kind and by interaction need."""
    op.execute(
        """CREATE TABLE records (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            time REAL NOT NULL,
            subject TEXT NOT NULL,
            body TEXT,
            content BLOB NOT NULL,
            head BLOB NOT NULL
        )"""
    )
    op.execute("CREATE INDEX records_kind ON records (kind)")
    op.execute("CREATE INDEX records_subject ON records (subject) WHERE subject <> ''")
