"""Retention: what the owner wants forgotten by itself, by age and by kind."""

from collections.abc import Iterator
from dataclasses import dataclass

from store.base import StoreBase
from store.errors import NotEligible, UsageError
from store.records import Correction, Interaction, Rating

DAY = 86_400.0
CLOCK_TOLERANCE = DAY  # seconds by which the newest record may lie in the future
LEAST_DAYS = 1.0
EVERY = 3600.0  # seconds between two applications in the background


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days to keep each kind; None keeps it for good.

    An interaction that was corrected goes by `corrections`, with all that hangs on it; the others by
    `interactions`. Ratings of interactions that stay go by `ratings`.
    """

    interactions: float | None = None
    corrections: float | None = None
    ratings: float | None = None

    def __post_init__(self) -> None:
        days = [self.interactions, self.corrections, self.ratings]
        if any(value is not None and not value >= LEAST_DAYS for value in days):
            raise UsageError(
                "A retention period is shorter than a day.",
                hint="Under [retention] give days, at least 1, or leave the line out to keep everything.",
                code="config",
            )

    @property
    def limited(self) -> bool:
        """Whether anything is forgotten by itself at all."""
        return self != RetentionPolicy()


class Keeper:
    """Applies a policy now and then; a background process asks it at every look.

    Args:
        policy: what is kept how long.
        every: seconds between two applications.
    """

    def __init__(self, policy: RetentionPolicy, every: float = EVERY) -> None:
        self._policy = policy
        self._every = every
        self._next = 0.0

    def look(self, store: StoreBase, now: float) -> list[str]:
        """Apply the policy when it is due at `now`; returns the ids removed. Raises as `apply_retention`."""
        if not self._policy.limited or self._next - self._every <= now < self._next:
            return []
        self._next = now + self._every
        return apply_retention(store, self._policy, now)


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
