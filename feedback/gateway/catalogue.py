"""Model ids and the adapters behind them: NAME as it serves, and NAME@base, @shared, @personal for comparison."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feedback.engine import Adapters, Engine
from feedback.gateway.errors import ApiError

SLOTS = ("shared", "personal")  # in order of application
Serving = Callable[[], dict[str, tuple[str, bytes]]]
Trying = Callable[[], tuple[float, Adapters] | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a request's model id stands for.

    Attributes:
        adapters: to answer with; None: those that serve.
        upstream: the id asks for the upstream.
    """

    id: str
    adapters: Adapters | None = None
    upstream: bool = False


class Catalogue:
    """The models on offer.

    Args:
        serving: the adapters that serve now, by slot; those of another base are left out.
        trial: the share of requests that other adapters answer, and these; None: no share.
        upstream: whether an upstream is configured.
    """

    def __init__(self, engine: Engine, serving: Serving, trial: Trying, *, upstream: bool) -> None:
        self._engine, self._serving, self._trial = engine, serving, trial
        self._trying = trial()
        self.name = model_name(engine.model.path.stem if engine.model.path else engine.model.name)
        self._created = int(time.time())
        self._kinds = ["", "@base", "@shared", "@personal", *(["@upstream"] if upstream else [])]

    @property
    def ids(self) -> list[str]:
        """All model ids."""
        return [self.name + kind for kind in self._kinds]

    def entries(self) -> list[dict[str, Any]]:
        """The models as the API lists them."""
        return [self.entry(id) for id in self.ids]

    def entry(self, id: str) -> dict[str, Any]:
        """One model as the API tells it."""
        if id not in self.ids:
            raise not_found()
        return {"id": id, "object": "model", "created": self._created, "owned_by": "corrigible"}

    def choose(self, id: str | None) -> Choice:
        """Return what a model id stands for; none means the model as it serves, or as it is on trial.

        Raises:
            ApiError: 404 for an id that is not on offer.
        """
        if not id or id == self.name:
            drawn = self._trying is not None and random.random() < self._trying[0]
            return Choice(self.name, self._trying[1] if drawn and self._trying else None)
        if id not in self.ids:
            raise not_found()
        kind = id.rpartition("@")[2]
        if kind == "upstream":
            return Choice(id, upstream=True)
        if kind == "base":
            return Choice(id, [])
        serving = self._serving()
        return Choice(id, [serving[kind]] if kind in serving else [])

    def refresh(self) -> bool:
        """Serve what the store says now; return whether that was a change. Answers in flight are not touched."""
        self._trying, serving = self._trial(), self._serving()
        stack = [serving[slot] for slot in SLOTS if slot in serving]
        if tuple(name for name, _ in stack) == self._engine.stack:
            return False
        self._engine.set_stack(stack)
        return True


def model_name(text: str) -> str:
    """Return a model's name as an id: lower case, no spaces or @."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-") or "model"


def not_found() -> ApiError:
    """Return the refusal of an unknown model."""
    return ApiError(404, "There is no such model; GET /v1/models lists them.", code="model_not_found", param="model")
