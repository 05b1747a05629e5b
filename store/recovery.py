"""Going on after damage: accepting what is lost, and salvaging what can still be read.

Both leave an Acceptance in the chain, so the loss stays on record for good.
"""

import time

from sqlalchemy import Engine

from store.anchor import Anchor, Mark
from store.append import append, kind_counts, tail
from store.artefacts import Artefacts
from store.base import Report
from store.chain import Acceptance, Flaw
from store.codec import encode
from store.engine import open_engine, reading, writing
from store.errors import CorrigibleError, IntegrityError
from store.generation import ARTEFACTS, DATABASE, alone, settle, write_anchor
from store.keychange import commit
from store.keys import Keys, check_keys, read_key_record, wrap
from store.paths import Home
from store.protectors import Protector
from store.rebuild import readable_artefacts, readable_rows, rebuild
from store.secret import Secret
from store.verify import chain_flaws

FIXABLE = {"missing", "altered", "vanished", "reappeared", "foreign", "anchor_missing", "search_index", "rolled_back"}


def accept(engine: Engine, anchor: Anchor, key: Secret, report: Report) -> None:
    """Write an Acceptance of everything in `report` and move the anchor to it.

    Args:
        engine: on the database.
        anchor: its anchor.
        key: the ledger subkey.
        report: what the owner was shown.

    Raises:
        IntegrityError: pages are damaged; that takes a backup or `salvage`.
    """
    serious = {problem.code for problem in report.problems} - FIXABLE - {"artefact_missing", "artefact_changed"}
    if serious:
        raise IntegrityError(
            "Parts of the database cannot be read.",
            hint="Restore a backup, or salvage what is left.",
            code="unreadable",
        )
    mark = anchor.read()
    with reading(engine) as connection:
        found = chain_flaws(connection, key)
        newest, _ = tail(connection, key)
    spent = max(newest, mark.seq if mark else 0)
    gaps = [(flaw.first, flaw.last) for flaw in found if flaw.code == "missing"]
    if spent > newest:
        gaps.append((newest + 1, spent))
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO words (words) VALUES ('rebuild')")
        added = append(connection, key, [encode(_acceptance(gaps, found))], spent)
        counts = kind_counts(connection, 1, spent + 1)
    if added is not None:
        new = Mark(added.last, added.head.hex(), counts)
        anchor.advance(lambda _: new)


def salvage(home: Home, keys: Keys, protector: Protector) -> Keys:
    """Move every row and artefact that can still be read into a fresh generation, under a fresh key.

    The store is marked broken until the owner accepts what `Store.verify` then reports missing.

    Raises:
        WrongKey: `keys` do not belong to this store.
        IntegrityError: not even the first page can be read.
        Locked: another process has the store open.
    """
    fresh = Keys.generate()
    with alone(home):
        record = read_key_record(home)
        check_keys(record, keys)
        folder, number = home.generation(record.generation), record.generation + 1
        anchor = Anchor(home.anchor(record.generation), keys.sub("ledger"))
        shelf = Artefacts(folder / ARTEFACTS, keys.sub("artefacts"))
        engine = open_engine(folder / DATABASE, keys.secret("database"))
        try:
            mark = anchor.read() or Mark(_last_readable(engine), "")
            rebuild(home, number, fresh, readable_rows(engine, mark.seq), readable_artefacts(shelf))
        finally:
            engine.dispose()
            anchor.close()
        broken = Mark(mark.seq, "", mark.counts, broken="The store was salvaged; not everything could be read.")
        write_anchor(home, number, fresh, broken)
        commit(home, wrap(fresh, protector, home, number), protector, record)
    settle(home, read_key_record(home))
    return fresh


def _last_readable(engine: Engine) -> int:
    try:
        with reading(engine) as connection:
            return tail(connection, b"")[0]
    except CorrigibleError:
        return 0


def _acceptance(gaps: list[tuple[int, int]], found: list[Flaw]) -> Acceptance:
    altered = tuple(flaw.first for flaw in found if flaw.code != "missing")
    return Acceptance(missing=tuple(gaps), altered=altered, time=time.time())
