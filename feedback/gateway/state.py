"""Everything the routes work with, in one value; and what the gateway is told by the rooms above it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feedback.engine import Engine
from feedback.gateway.catalogue import Catalogue, Serving, Trying
from feedback.gateway.desk import Desk
from feedback.gateway.events import Watcher
from feedback.gateway.journal import Journal
from feedback.gateway.settings import GatewaySettings
from feedback.gateway.tokens import Doorman
from feedback.upstream.client import Upstream
from store.base import StoreBase
from store.records import Purpose, Slot

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Above:
    """What learner, federation and command line lend to the gateway, as plain callables that may block.

    Attributes:
        serving: the adapters that serve, by slot.
        trial: (share of the requests, adapters that answer them instead), while an adapter is proving itself.
        asked: told of every request, so that the learner makes room.
        status: what `corrigible status` holds.
        health: what `corrigible doctor` finds, as {name, level, text, fix}.
        learner: {state, reason, next_look}.
        learn: ask for a learning run now.
        rollback: serve what was served before in a slot; returns {slot, before, after}.
        budget: {unit, epsilon_spent, epsilon_cap, delta, period}.
        preview: a readable account of the next update.
        consent: record the owner's word on a purpose.
        log: keep the frames of an unexpected error.
    """

    serving: Serving
    trial: Trying
    asked: Callable[[], None]
    status: Callable[[], Json]
    health: Callable[[], list[Json]]
    learner: Callable[[], Json]
    learn: Callable[[], Json]
    rollback: Callable[[Slot], Json]
    budget: Callable[[], Json]
    preview: Callable[[], Json]
    consent: Callable[[Purpose, bool], None]
    log: Callable[[BaseException], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts of a running gateway."""

    settings: GatewaySettings
    engine: Engine
    store: StoreBase
    catalogue: Catalogue
    desk: Desk
    journal: Journal
    doorman: Doorman
    watcher: Watcher
    above: Above
    upstream: Upstream | None
    default_tokens: int
