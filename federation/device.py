"""A device's part in a round: may I, train privately, write it down, answer.

Consent, limits and budget are checked here and nowhere trusted to the server. Whether a device takes part depends on
none of its private data: without any correction it sends pure noise. Flower is the client app's business.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import adapter
from federation.budget import Price, eligible, price
from federation.membership import Membership
from federation.protocol import Order, Reply, SignedOrder, Word, open_order, sign_reply
from federation.release import Release
from federation.spec import RoundSpec
from federation.update import Expected, privatise
from learner.base import Geometry
from learner.lora import LoraWeights
from store.base import StoreBase
from store.errors import BudgetExhausted, IntegrityError, Locked, ReleaseRejected
from store.records import Consent, Egress, Example, Purpose, Spend, digest

if TYPE_CHECKING:
    from learner.private import PrivateDelta

PURPOSE: Purpose = "share"
LOCK = "share"  # one round at a time on one store

# Private training: corrections, the round's spec, the release to start from -> noised change of B.
Trainer = Callable[[Sequence[Example], RoundSpec, LoraWeights], "PrivateDelta"]


class Declined(Exception):
    """This device does not take part; `word` says why and is all that is said."""

    def __init__(self, word: Word) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Device:
    """One store, its place in a fleet, and how it trains."""

    store: StoreBase
    membership: Membership
    key: Ed25519PrivateKey
    geometry: Geometry
    train: Trainer

    def answer(self, signed: SignedOrder, envelope: bytes, data: bytes) -> Reply:
        """Answer one order of the fleet with an update or a word.

        Spend and egress are committed to the store before this returns.

        Raises:
            ReleaseRejected: the order is not the fleet's, or not for this device; nothing is said then.
        """
        order = open_order(signed, self.membership.release_key)
        if (order.fleet, order.device) != (self.membership.fleet, self.key.public_key().public_bytes_raw().hex()):
            raise ReleaseRejected("an order for another device was refused", code="device")
        try:
            with self.store.lock(LOCK):
                payload = self._take_part(order, envelope, data)
        except Declined as declined:
            return sign_reply(order, b"", self.key, decline=declined.word)
        except Locked:
            return sign_reply(order, b"", self.key, decline="busy")
        return sign_reply(order, payload, self.key)

    def _take_part(self, order: Order, envelope: bytes, data: bytes) -> bytes:
        """All checks, then training, then the ledger; return the bytes that may leave."""
        now = time.time()
        self.store.require_whole()
        consent = self._consent()
        if now > order.deadline:
            raise Declined("late")
        if (paid := self.store.last(Spend, run=_run(order))) is not None:
            return self._again(paid, consent)
        if self.membership.limits.refuses(order.spec):
            raise Declined("spec")
        release, weights = self._release(order, envelope, data)
        spends = self.store.all(Spend)
        cost = self._price(spends, order, now)
        corrections = eligible(self.store.examples(), spends, self.membership.limits)
        delta = self.train(corrections, order.spec, weights)
        expected = Expected(
            release.manifest.base,
            release.manifest.id,
            order.round,
            order.spec,
            adapter.layout(self.geometry, order.spec),
        )
        payload = privatise(delta, expected).encode()
        self._record(order, consent, cost, payload)
        return payload

    def _consent(self) -> Consent:
        """The owner's consent to share with this fleet."""
        consent = self.store.consent(PURPOSE, self.membership.fleet)
        if consent is None:
            raise Declined("consent")
        return consent

    def _again(self, paid: Spend, consent: Consent) -> bytes:
        """The very bytes that were paid for: a server that lost the answer may ask again at no further cost."""
        try:
            payload = self.store.artefact(paid.payload)
        except IntegrityError as error:
            raise Declined("spent") from error
        self.store.add(self._egress(consent, payload, 0.0))
        return payload

    def _release(self, order: Order, envelope: bytes, data: bytes) -> tuple[Release, LoraWeights]:
        """The verified release the order starts from, and its weights."""
        try:
            release = self.membership.accept(envelope, data)
            limit = self.membership.limits.max_adapter_norm
            weights = adapter.open_release(release, self.geometry, max_norm=limit)
        except ReleaseRejected as error:
            raise Declined("base" if error.code == "base" else "release") from error
        if release.manifest.id != order.release or release.manifest.round + 1 != order.round:
            raise Declined("release")
        mechanism = release.manifest.mechanism
        if (mechanism.rank, mechanism.alpha, mechanism.seed_a) != (
            order.spec.rank,
            order.spec.alpha,
            order.spec.seed_a,
        ):
            raise Declined("spec")
        return release, weights

    def _price(self, spends: Sequence[Spend], order: Order, now: float) -> Price:
        """What the round costs, when the cap allows it."""
        try:
            return price(spends, order.spec, self.membership.limits, now)
        except BudgetExhausted as error:
            raise Declined("budget") from error

    def _record(self, order: Order, consent: Consent, cost: Price, payload: bytes) -> None:
        """Commit spend and egress together, before a byte leaves."""
        spec = order.spec
        spend = Spend(
            run=_run(order),
            unit=spec.unit,
            noise_multiplier=spec.noise_multiplier,
            sampling_rate=spec.sampling_rate,
            steps=spec.steps,
            clipping_norm=spec.clipping_norm,
            delta=self.membership.limits.delta,
            epsilon=cost.epsilon,
            total=cost.total,
            payload=digest(payload),
            time=time.time(),
        )
        before = self.store.last(Spend)
        self.store.put_artefact(payload)
        self.store.add_all([spend, self._egress(consent, payload, cost.epsilon)])
        if before is not None:
            self.store.drop_artefact(before.payload)

    def _egress(self, consent: Consent, payload: bytes, epsilon: float) -> Egress:
        """The ledger's line for bytes that are about to leave."""
        return Egress(
            purpose=PURPOSE,
            destination=self.membership.fleet,
            consent=consent.id,
            size=len(payload),
            payload=digest(payload),
            epsilon=epsilon,
            time=time.time(),
        )


def _run(order: Order) -> str:
    """The ledger's name for one order; a repeated order has the same."""
    return f"{order.fleet}/{order.run}/{order.round}/{order.nonce}"
