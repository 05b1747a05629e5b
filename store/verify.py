"""The full check of a store: pages, chain, anchor, search index, artefacts. Reads everything."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine

from store.anchor import Anchor
from store.artefacts import Artefacts, short
from store.base import Problem, Report
from store.chain import KINDS, Acceptance, Flaw, Removal, Row, flaws
from store.codec import decode
from store.engine import checkpoint, damaged_pages, reading
from store.errors import CorrigibleError, Locked
from store.guard import changed_at_rest, compare
from store.secret import Secret

_WORDS = {
    "missing": "are missing",
    "altered": "were altered",
    "vanished": "lost their text without a removal",
    "reappeared": "came back after their removal",
}


def verify(engine: Engine, database: Path, anchor: Anchor, key: Secret, artefacts: Artefacts) -> Report:
    """Check everything; nothing is changed.

    Args:
        engine: on the database.
        database: its file.
        anchor: its anchor.
        key: the ledger subkey.
        artefacts: the artefact folder.
    """
    problems: list[Problem] = []
    missing: dict[str, int] = {}
    records = 0
    try:
        mark = anchor.read()
        if changed_at_rest(engine, database, anchor, key):
            problems.append(Problem("rolled_back", "Pages of the database are not those that were there at close."))
        checkpoint(engine)
        problems += [Problem("pages", f"The database is damaged: {words}.") for words in damaged_pages(engine)[:20]]
        found, missing = compare(engine, mark, key)
        problems += [found] if found else []
        with reading(engine) as connection:
            records = connection.exec_driver_sql("SELECT count(*) FROM records").scalar_one()
            problems += [describe(flaw) for flaw in chain_flaws(connection, key)]
            problems += _lost_artefacts(connection, artefacts)
        problems += _index_problems(engine)
    except Locked:
        raise
    except CorrigibleError as error:
        problems.append(Problem(error.code, error.message))
    return Report(records, tuple(problems), missing)


def describe(flaw: Flaw) -> Problem:
    """A flaw of the chain in words."""
    where = f"Record {flaw.first}" if flaw.first == flaw.last else f"Records {flaw.first} to {flaw.last}"
    return Problem(flaw.code, f"{where} {_WORDS[flaw.code]}.", flaw.first, flaw.last)


def chain_flaws(connection: Connection, key: Secret) -> list[Flaw]:
    """All unaccepted flaws of the chain."""
    return list(flaws(_rows(connection), key, _entries(connection)))


def _rows(connection: Connection) -> Iterator[Row]:
    for row in connection.exec_driver_sql("SELECT seq, id, kind, body, content, head FROM records ORDER BY seq"):
        yield _as_row(*row)


def _as_row(seq: int, id: object, kind: object, body: object, content: object, head: object) -> Row:
    """A row whose columns have their types, whatever a damaged page made of them; the chain notices the rest."""
    text = body if body is None or isinstance(body, str) else f"not text: {type(body).__name__}"
    binary = [value if isinstance(value, bytes) else b"" for value in (content, head)]
    return Row(seq, str(id), str(kind), text, *binary)


def _entries(connection: Connection) -> Iterator[Removal | Acceptance]:
    rows = connection.exec_driver_sql(
        "SELECT kind, body FROM records WHERE kind IN ('Removal', 'Acceptance') AND body IS NOT NULL"
    )
    for kind, body in rows:
        entry = decode(kind, body, KINDS)
        if isinstance(entry, (Removal, Acceptance)):
            yield entry


def _lost_artefacts(connection: Connection, artefacts: Artefacts) -> Iterator[Problem]:
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT json_extract(body, '$.adapter') FROM records WHERE kind = 'Activation' AND seq IN "
        "(SELECT max(seq) FROM records WHERE kind = 'Activation' GROUP BY json_extract(body, '$.slot'))"
    )
    names = [str(name) for (name,) in rows if name]
    for name in names:
        try:
            artefacts.get(name)
        except CorrigibleError as error:
            yield Problem(error.code, f"{error.message} (serving adapter {short(name)})")


def _index_problems(engine: Engine) -> list[Problem]:
    """Whether the full-text index says what the records say."""
    try:
        with reading(engine) as connection:
            connection.exec_driver_sql("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
    except CorrigibleError as error:
        if error.code in ("store_corrupt", "database"):
            return [Problem("search_index", "The search index does not agree with the records.")]
        raise
    return []
