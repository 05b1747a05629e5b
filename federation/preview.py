"""The message a round would send from this device, made exactly as for a round; nothing is recorded or sent."""

import time

from federation import adapter
from federation.budget import eligible, price
from federation.charter import open_terms
from federation.device import Trainer
from federation.membership import Membership
from federation.spec import NOISE_LEVELS, RoundSpec
from federation.update import HEADER, MAGIC, VERSION, Expected, PrivateUpdate, privatise
from learner.base import Geometry
from learner.export import from_gguf
from store.base import StoreBase
from store.errors import NotEligible
from store.records import Spend

NO_RELEASE = "sha256:" + "0" * 64  # stands for the release that the first round will make


def account(update: PrivateUpdate) -> list[str]:
    """Return what every byte of the message says, in lines for a person."""
    expected, levels = update.expected, update.levels
    spec, low, high = expected.spec, levels.min(), levels.max()
    starts = "hash of the release it starts from; the same for everybody"
    if expected.release == NO_RELEASE:
        starts = "zeros; in a round the hash of the release it starts from, of which there is none here yet"
    return [
        f"0 to 7: {MAGIC.decode()}, version {VERSION}, {spec.bits} bits a number; the same for everybody",
        f"8 to 15: round {expected.round}, {expected.count} numbers; the same for everybody",
        f"16 to 47: hash of the base model; the same for everybody ({expected.base[7:19]}…)",
        f"48 to 79: {starts} ({expected.release[7:19]}…)",
        f"80 to 111: hash of the mechanism; the same for everybody ({spec.id[7:19]}…)",
        f"{HEADER.size} to {expected.size - 1}: {expected.count} noised numbers from {low} to {high}, in steps of "
        f"{spec.quantum:.3g}; noise of {NOISE_LEVELS} steps in each, your corrections somewhere below it",
        "nothing else: no text, no count of corrections, no loss, no time",
        "around it travel this device's signature over it (64 bytes) and what Flower sends it by: numbers of node, run "
        "and message, times, hashes",
    ]


def preview(store: StoreBase, place: Membership, geometry: Geometry, train: Trainer) -> tuple[PrivateUpdate, float]:
    """Return the update for the round after the newest release seen, and the epsilon it would cost.

    Raises:
        BudgetExhausted: the round would pass this device's cap.
        NotEligible: what a round will ask for is not known here yet.
    """
    newest = place.newest()
    spec = newest.mechanism if newest else _agreed(place)
    start = adapter.empty(spec, geometry)
    if newest:
        start = from_gguf((place.folder / "newest.gguf").read_bytes(), geometry, place.base)
    spends = store.all(Spend)
    cost = price(spends, spec, place.limits, time.time())
    delta = train(eligible(store.examples(), spends, place.limits), spec, start)
    release, number = (newest.id, newest.round + 1) if newest else (NO_RELEASE, 1)
    expected = Expected(place.base, release, number, spec, adapter.layout(geometry, spec))
    return privatise(delta, expected), cost.epsilon


def _agreed(place: Membership) -> RoundSpec:
    """The mechanism in the terms that the owner agreed to."""
    if not place.terms.exists():
        raise NotEligible("No round's mechanism is known here yet.", hint="`corrigible fleet receive`, then again.")
    return open_terms(place.terms.read_bytes(), place.release_key).spec
