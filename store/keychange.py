"""Changing keys: another protector for the same data key, or a new data key for everything.

Both end in one rename of key.json. Before it the old key opens the store, after it the new one; at no moment
do both or neither.
"""

from store.anchor import Anchor
from store.artefacts import Artefacts
from store.engine import open_engine
from store.errors import IntegrityError
from store.generation import ARTEFACTS, DATABASE, alone, settle
from store.keys import (
    KeyRecord,
    Keys,
    check_keys,
    read_key_record,
    unwrap,
    wrap,
    write_key_record,
)
from store.paths import Home
from store.protectors import Protector, protector_for
from store.rebuild import readable_artefacts, rebuild, rows_of
from store.verify import verify


def change_protector(home: Home, keys: Keys, protector: Protector) -> None:
    """Wrap the same data key with another protector, e.g. a new passphrase; nothing is re-encrypted.

    Raises:
        WrongKey: `keys` do not belong to this store.
        UsageError: the new protector cannot be used here.
        Locked: another process is changing keys.
    """
    with alone(home):
        record = read_key_record(home)
        check_keys(record, keys)
        commit(home, wrap(keys, protector, home, record.generation), protector, record)


def rotate(home: Home, keys: Keys, protector: Protector) -> Keys:
    """Encrypt everything under a fresh data key, wrapped by `protector`, and return it.

    Afterwards the old key and whatever it opened are shredded. Older backups still open with their own key.

    Raises:
        WrongKey: `keys` do not belong to this store.
        IntegrityError: the store is damaged; rotation would hide that.
        Locked: another process has the store open.
    """
    fresh = Keys.generate()
    with alone(home):
        record = read_key_record(home)
        check_keys(record, keys)
        _copy(home, record, keys, fresh)
        commit(home, wrap(fresh, protector, home, record.generation + 1), protector, record)
    settle(home, read_key_record(home))
    return fresh


def commit(home: Home, record: KeyRecord, protector: Protector, before: KeyRecord | None) -> None:
    """Check that `record` opens, make it key.json, then forget what guarded the key before."""
    unwrap(record, protector, home)
    write_key_record(home, record)
    if before is not None and before.params != record.params:
        protector_for(before.backend, before.params, None).forget(home, before.params)


def _copy(home: Home, record: KeyRecord, old: Keys, new: Keys) -> None:
    """Build the next generation's draft from the current one, which must be whole."""
    folder, ledger = home.generation(record.generation), old.sub("ledger")
    shelf = Artefacts(folder / ARTEFACTS, old.sub("artefacts"))
    anchor = Anchor(home.anchor(record.generation), ledger)
    engine = open_engine(folder / DATABASE, old.secret("database"))
    try:
        mark = anchor.read()
        report = verify(engine, folder / DATABASE, anchor, ledger, shelf)
        if not report.ok or mark is None or mark.broken:
            raise IntegrityError(
                "The store is damaged; its key is not rotated before that is settled.",
                hint="See `corrigible doctor`.",
                code="store_damaged",
            )
        rebuild(home, record.generation + 1, new, rows_of(engine), readable_artefacts(shelf))
    finally:
        engine.dispose()
        anchor.close()
