"""The full-text index over interactions and corrections."""

from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `words`, an FTS5 index without a copy of the text, and fill it from the live rows.

    The index reads its text through the view `texts`; secure-delete makes a removed word leave the index pages.
    """
    op.execute(
        """CREATE VIEW texts AS
        SELECT seq, CASE kind
            WHEN 'Interaction'
            THEN coalesce(json_extract(body, '$.messages[#-1].content'), '') || char(10)
                || json_extract(body, '$.answer')
            ELSE json_extract(body, '$.corrected') || char(10) || json_extract(body, '$.reason')
        END AS text
        FROM records WHERE body IS NOT NULL AND kind IN ('Interaction', 'Correction')"""
    )
    op.execute(
        "CREATE VIRTUAL TABLE words USING fts5("
        "text, content='texts', content_rowid='seq', tokenize='unicode61 remove_diacritics 2')"
    )
    op.execute("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")
    op.execute("INSERT INTO words (rowid, text) SELECT seq, text FROM texts")
