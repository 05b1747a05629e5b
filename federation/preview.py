"""The message a round would send from this device, made exactly as for a round; nothing is recorded or sent."""

import time

from federation import adapter
from federation.budget import eligible, price
from federation.device import Trainer
from federation.membership import Membership
from federation.spec import NOISE_LEVELS, RoundSpec
from federation.update import HEADER, MAGIC, VERSION, Expected, PrivateUpdate, privatise
from learner.base import Base
from learner.export import from_gguf
from store.base import StoreBase
from store.records import Spend


def account(update: PrivateUpdate) -> list[str]:
    """Return what every byte of the message says, in lines for a person."""
    expected, levels = update.expected, update.levels
    spec, low, high = expected.spec, levels.min(), levels.max()
    return [
        f"0 to 7: {MAGIC.decode()}, version {VERSION}, {spec.bits} bits a number; the same for everybody",
        f"8 to 15: round {expected.round}, {expected.count} numbers; the same for everybody",
        f"16 to 47: hash of the base model; the same for everybody ({expected.base[7:19]}…)",
        f"48 to 79: hash of the release it starts from; the same for everybody ({expected.release[7:19]}…)",
        f"80 to 111: hash of the mechanism; the same for everybody ({spec.id[7:19]}…)",
        f"{HEADER.size} to {expected.size - 1}: {expected.count} noised numbers from {low} to {high}, in steps of "
        f"{spec.quantum:.3g}; noise of {NOISE_LEVELS} steps in each, your corrections somewhere below it",
        "nothing else: no text, no count of corrections, no loss, no time",
    ]


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
