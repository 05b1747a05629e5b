"""The message a round would send from this device, made exactly as for a round; nothing is recorded or sent."""

import time

from federation import adapter
from federation.budget import eligible, price
from federation.device import Trainer
from federation.membership import Membership
from federation.spec import RoundSpec
from federation.update import Expected, PrivateUpdate, privatise
from learner.base import Base
from learner.export import from_gguf
from store.base import StoreBase
from store.records import Spend


def preview(
    store: StoreBase, place: Membership, base: Base, train: Trainer, default: RoundSpec
) -> tuple[PrivateUpdate, float]:
    """Return the update for the round after the newest release seen, and the epsilon it would cost.

    Args:
        base: what training runs on.
        default: the mechanism to assume before the first release.

    Raises:
        BudgetExhausted: the round would pass this device's cap.
    """
    newest = place.newest()
    spec = newest.mechanism if newest else default
    start = adapter.empty(spec, base.geometry)
    if newest:
        start = from_gguf((place.folder / "newest.gguf").read_bytes(), base.geometry, place.base)
    spends = store.all(Spend)
    cost = price(spends, spec, place.limits, time.time())
    delta = train(eligible(store.examples(), spends, place.limits), spec, start)
    release, number = (newest.id, newest.round + 1) if newest else ("sha256:" + "0" * 64, 1)
    expected = Expected(place.base, release, number, spec, adapter.layout(base.geometry, spec))
    return privatise(delta, expected), cost.epsilon
