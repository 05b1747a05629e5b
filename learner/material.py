"""What a learning run works with: the owner's words sorted into what is new, what is known and what must stay.

Reads the store; changes nothing. Of several answers to one request the newest counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from feedback.engine import Engine
from learner.gate import GatePolicy
from learner.judge import Stack
from store.base import StoreBase
from store.records import Adapter, Example, Message, Slot

Probe = Sequence[tuple[str, str]]  # prompt and answer of the base model's own skill


@dataclass(frozen=True, slots=True)
class Served:
    """The adapters that serve now."""

    shared: tuple[str, bytes] | None
    personal: tuple[str, bytes] | None
    learned: frozenset[str]  # ids of the examples the personal adapter has learned from

    @property
    def stack(self) -> Stack:
        """In order of application."""
        return [adapter for adapter in (self.shared, self.personal) if adapter is not None]

    def with_adapter(self, slot: Slot, name: str, data: bytes) -> Stack:
        """The stack with another adapter in `slot`."""
        shared = (name, data) if slot == "shared" else self.shared
        personal = (name, data) if slot == "personal" else self.personal
        return [adapter for adapter in (shared, personal) if adapter is not None]


@dataclass(frozen=True, slots=True)
class Material:
    """Distinct requests with the answers wanted, oldest first in every part."""

    fresh: tuple[Example, ...]  # corrections the personal adapter has not learned from
    earlier: tuple[Example, ...]  # corrections it has
    approved: tuple[Example, ...]
    probe: tuple[Example, ...]  # may be replayed
    guard: tuple[Example, ...]  # probe pairs that only judge

    @property
    def corrections(self) -> tuple[Example, ...]:
        """All of them, earlier ones first."""
        return (*self.earlier, *self.fresh)

    @property
    def own(self) -> tuple[Example, ...]:
        """Everything the owner has said."""
        return (*self.corrections, *self.approved)

    def only(self, ids: frozenset[str]) -> Self:
        """The same without those of the owner's examples that are not among `ids`."""
        parts = (tuple(one for one in part if one.id in ids) for part in (self.fresh, self.earlier, self.approved))
        fresh, earlier, approved = parts
        return replace(self, fresh=fresh, earlier=earlier, approved=approved)


def served(store: StoreBase, engine: Engine) -> Served:
    """Return what the store says serves on this engine's base model.

    Raises:
        IntegrityError: an adapter's bytes are missing or changed.
    """
    personal = _active(store, "personal", engine.model.digest)
    shared = _active(store, "shared", engine.model.digest)
    return Served(
        (shared.digest, store.artefact(shared.digest)) if shared else None,
        (personal.digest, store.artefact(personal.digest)) if personal else None,
        frozenset(personal.examples) if personal else frozenset(),
    )


def gather(store: StoreBase, learned: frozenset[str], probe: Probe, policy: GatePolicy) -> Material:
    """Sort the store's examples and the probe pairs."""
    examples = _newest(store.examples())
    corrections = [example for example in examples if example.rejected is not None]
    training, guard = divided(probe, policy)
    return Material(
        fresh=tuple(example for example in corrections if example.id not in learned),
        earlier=tuple(example for example in corrections if example.id in learned),
        approved=tuple(example for example in examples if example.rejected is None),
        probe=training,
        guard=guard,
    )


def divided(pairs: Probe, policy: GatePolicy) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return (examples that may train, examples that only judge) of a base's own pairs.

    The first ones judge: a base's maker puts those first that the base itself was not trained on. Of those it knows
    by heart it is surer than of others, and they would not tell what is lost.
    """
    examples = examples_of(pairs)
    guard = examples[: min(policy.guard, round(policy.guard_share * len(examples)))]
    asked = {one.request for one in guard}
    return tuple(one for one in examples[len(guard) :] if one.request not in asked), tuple(guard)


def examples_of(pairs: Probe) -> list[Example]:
    """Return (prompt, answer) pairs as examples."""
    return [Example(messages=(Message("user", prompt),), answer=answer) for prompt, answer in pairs]


def _active(store: StoreBase, slot: Slot, base: str) -> Adapter | None:
    """The adapter record served in `slot`; None when there is none or it was made for another base."""
    name = store.active(slot)
    record = store.last(Adapter, digest=name) if name else None
    return record if record is not None and record.base == base else None


def _newest(examples: Iterable[Example]) -> list[Example]:
    """The newest answer to each request, in order of time."""
    latest: dict[str, Example] = {}
    for example in examples:
        latest.pop(example.request, None)
        latest[example.request] = example
    return list(latest.values())
