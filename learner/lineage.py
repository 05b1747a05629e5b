"""The way back from an adoption. Loads no model and no torch."""

from store.base import StoreBase
from store.errors import UsageError
from store.records import Adapter, Slot


def rollback(store: StoreBase, slot: Slot) -> str | None:
    """Serve the parent of the adapter in `slot` again (nothing when it had none); returns its digest.

    Raises:
        UsageError: nothing is served in `slot`.
    """
    name = store.active(slot)
    record = store.last(Adapter, digest=name) if name else None
    if record is None:
        raise UsageError(f"No {slot} adapter is in use.", code="nothing_to_roll_back")
    store.activate(slot, record.parent, "rollback")
    return record.parent
