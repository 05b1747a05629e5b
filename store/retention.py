"""Retention: what the owner wants forgotten by itself, by age and by kind."""

from collections.abc import Iterator
from dataclasses import dataclass

from store.base import StoreBase
from store.errors import NotEligible
from store.records import Correction, Interaction, Rating

DAY = 86_400.0
CLOCK_TOLERANCE = DAY  # seconds by which the newest record may lie in the future


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days to keep each kind; None keeps it for good.

    An interaction that was corrected goes by `corrections`, with all that hangs on it; the others by
    `interactions`. Ratings of interactions that stay go by `ratings`.
    """

    interactions: float | None = None
    corrections: float | None = None
    ratings: float | None = None


def apply_retention(store: StoreBase, policy: RetentionPolicy, now: float) -> list[str]:
    """Remove what is older than `policy` allows at `now`; returns the ids removed.

    Raises:
        NotEligible: the clock is behind the newest record (``clock_backwards``); nothing is removed.
    """
    newest = max((record.time for record in (store.last(Interaction), store.last(Correction)) if record), default=now)
    if newest > now + CLOCK_TOLERANCE:
        raise NotEligible(
            "The clock is behind the newest record; nothing was removed.", hint="Set the clock.", code="clock_backwards"
        )
    doomed = list(_doomed(store, policy, now))
    return store.remove_all(doomed, why="retention") if doomed else []


def _doomed(store: StoreBase, policy: RetentionPolicy, now: float) -> Iterator[str]:
    """Ids past their time; an interaction stands for what hangs on it."""
    corrected: dict[str, float] = {}
    for correction in store.all(Correction):
        corrected[correction.interaction] = max(correction.time, corrected.get(correction.interaction, 0.0))
    going: set[str] = set()
    for interaction in store.all(Interaction):
        id = interaction.id
        days = policy.corrections if id in corrected else policy.interactions
        if _past(days, corrected.get(id, interaction.time), now):
            going.add(id)
            yield id
    for rating in store.all(Rating):
        if rating.interaction not in going and _past(policy.ratings, rating.time, now):
            yield rating.id


def _past(days: float | None, time: float, now: float) -> bool:
    return days is not None and time < now - days * DAY
