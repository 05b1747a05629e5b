"""What a device does with the fleet's releases: look, drop what was withdrawn, verify what is new.

Whether a verified release is then served is the device's own gate's decision (`learner.cycle.judge_release`).
"""

from dataclasses import dataclass

from federation.membership import Membership
from federation.mirror import Fetch, Mirror, chosen
from federation.release import Release
from store.base import StoreBase
from store.records import Adapter


@dataclass(frozen=True, slots=True)
class News:
    """What a look brought."""

    release: Release | None  # the newest that this device may take; None: none is offered
    fresh: bool  # it was not judged here before
    withdrawn: str | None  # digest of the adapter that is no longer served because its release was withdrawn


def look(store: StoreBase, place: Membership, fetch: Fetch) -> News:
    """Look at the fleet's list of releases.

    A shared adapter whose release is no longer listed stops being served at once, whatever replaces it.

    Raises:
        ReleaseRejected: list, manifest or adapter do not verify; nothing changed.
        NetworkError: the list cannot be fetched.
    """
    mirror = Mirror(place.metadata, place.pinned_root(), fetch)
    offers = mirror.offers()
    withdrawn = _drop(store, {offer.id for offer in offers})
    offer = chosen(offers, place.device_id())
    if offer is None:
        return News(None, False, withdrawn)
    fresh = store.last(Adapter, release=offer.id) is None
    seen = place.remembered()
    if seen is not None and seen.manifest.id == offer.id:
        return News(seen, fresh, withdrawn)
    if seen is not None and seen.manifest.round > offer.round:
        return News(None, False, withdrawn)  # a round brought a newer one that is not for all devices yet
    return News(place.accept(*mirror.download(offer)), fresh, withdrawn)


def _drop(store: StoreBase, listed: set[str]) -> str | None:
    """Stop serving an adapter of a release that is no longer listed; return its digest."""
    serving = store.active("shared")
    record = store.last(Adapter, digest=serving) if serving else None
    if record is None or record.release is None or record.release in listed:
        return None
    store.activate("shared", None, "its release was withdrawn")
    return serving
