"""Does the new adapter do worse in real use? A test that may be looked at after every request.

The owner's corrections are coins. While an adapter answers a random share p of the requests, each corrected request
came from it with probability p if it is corrected as often as the other, and less if it is better. Where it answers
everything, requests after its adoption are paired with those before it; of the pairs in which exactly one was
corrected, that one is the newer with probability at most 1/2 if nothing got worse. Either way a bet against
"no worse" multiplies its stake by a factor of mean at most one at every coin, so by Ville's inequality it ever grows
20-fold with probability at most 1/20, however often one looks: Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", arXiv 2010.09686; the stake is spread over a grid of alternatives.

The second design rests on the owner asking the same kind of things before and after; the first does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from store.base import StoreBase
from store.records import Activation, Adapter, Correction, Interaction, LiveVerdict, Trial, Verdict

if TYPE_CHECKING:
    from learner.material import Served

ALPHA = 0.05  # how often a harmless adapter may be rolled back
WATCHED = 200  # requests after which an adapter that did no harm is no longer watched
LONGEST = 14 * 86_400.0  # seconds of a trial with too few requests
GRID = 20  # alternatives the stake is spread over


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of the comparison, in order of time: was each request corrected?"""

    corrected: tuple[bool, ...]

    @property
    def corrections(self) -> int:
        """How many were."""
        return sum(self.corrected)


def e_value(coins: Iterable[bool], share: float) -> float:
    """Return the most that a bet against "the new one shows up with probability at most `share`" ever held.

    Args:
        coins: True where the correction was of the new one, in order of time.
    """
    rates = np.linspace(share, 1.0, GRID + 2)[1:-1]
    gain, loss = np.log(rates / share), np.log((1 - rates) / (1 - share))
    stakes, best = np.zeros(GRID), 0.0
    for coin in coins:
        stakes += gain if coin else loss
        top = float(stakes.max())
        best = max(best, top + float(np.log(np.exp(stakes - top).mean())))
    return float(np.exp(best))


def paired(before: Arm, after: Arm) -> list[bool]:
    """Return the coins of requests before and after: for each pair that differs, whether the newer was corrected.

    The first after goes with the last before, the second with the last but one, so that a pair once made stays.
    """
    return [new for old, new in zip(reversed(before.corrected), after.corrected, strict=False) if old != new]


def review(store: StoreBase, now: float, *, alpha: float = ALPHA) -> LiveVerdict | None:
    """Look at the personal adapter in use or on trial; roll it back or end the watch where that is due.

    The verdict is stored with its evidence, and what serves from then on in the same transaction.
    Returns: the verdict; None while there is nothing to decide.
    """
    trial = running_trial(store)
    found = _of_trial(store, trial, now, alpha) if trial else _of_adoption(store, now, alpha)
    if found is not None:
        records: list[LiveVerdict | Activation] = [found]
        serving = found.adapter if found.decision == "keep" else found.champion
        if serving != store.active("personal"):
            reason = "live corrections rose" if found.decision == "rollback" else "proved itself on trial"
            records.append(Activation(slot="personal", adapter=serving, reason=reason, time=now))
        store.add_all(records)
    return found


def running_trial(store: StoreBase) -> Trial | None:
    """Return the trial that has not ended; one whose champion no longer serves has."""
    trial = store.last(Trial)
    if trial is None or store.active("personal") != trial.champion:
        return None
    ended = store.last(LiveVerdict, adapter=trial.adapter)
    return None if ended is not None and ended.time >= trial.time else trial


def stack_for(store: StoreBase, now: "Served", draw: float) -> "Served":
    """Return what answers one request, given a number drawn evenly from [0, 1): what serves, or what is on trial."""
    trial = running_trial(store)
    if trial is None or draw >= trial.share:
        return now
    record = store.last(Adapter, digest=trial.adapter)
    learned = frozenset(record.examples) if record else frozenset()
    return replace(now, personal=(trial.adapter, store.artefact(trial.adapter)), learned=learned)


def _of_trial(store: StoreBase, trial: Trial, now: float, alpha: float) -> LiveVerdict | None:
    """Challenger and champion side by side."""
    asked = store.all(Interaction, since=trial.time)
    corrected = _corrected(store, trial.time)
    coins = [trial.adapter in one.stack for one in asked if one.id in corrected]
    new = _arm([one for one in asked if trial.adapter in one.stack], corrected)
    old = _arm([one for one in asked if trial.adapter not in one.stack], corrected)
    value = e_value(coins, trial.share)
    done = len(new.corrected) >= WATCHED or now - trial.time > LONGEST
    return _verdict(trial.adapter, trial.champion, value, trial.share, (old, new), done, now, alpha)


def _of_adoption(store: StoreBase, now: float, alpha: float) -> LiveVerdict | None:
    """Requests after the last adoption against those before it."""
    activation = store.last(Activation, slot="personal")
    if activation is None or activation.adapter is None:
        return None
    record = store.last(Adapter, digest=activation.adapter)
    adopted = store.last(Verdict, adapter=activation.adapter, decision="adopt")
    if record is None or adopted is None or adopted.time != activation.time:  # the owner's own choice is not watched
        return None
    seen = store.last(LiveVerdict, adapter=activation.adapter)
    if seen is not None and seen.time >= activation.time:
        return None
    after = [one for one in store.all(Interaction, since=activation.time) if activation.adapter in one.stack]
    if not after:
        return None
    earlier = store.all(Interaction, limit=len(after) + 2 * WATCHED)
    before = [one for one in earlier if one.time < activation.time and activation.adapter not in one.stack]
    corrected = _corrected(store, min(one.time for one in (*before, *after)))
    arms = _arm(before[-WATCHED:], corrected), _arm(after[:WATCHED], corrected)
    value = e_value(paired(*arms), 0.5)
    done = len(after) >= WATCHED
    return _verdict(activation.adapter, record.parent, value, 1.0, arms, done, now, alpha)


def _verdict(
    adapter: str, champion: str | None, value: float, share: float, arms: tuple[Arm, Arm], done: bool, now: float,
    alpha: float,
) -> LiveVerdict | None:
    """Rolled back on proof of harm, kept when watched for long enough, None until then."""
    old, new = arms
    if value < 1 / alpha and not done:
        return None
    return LiveVerdict(
        adapter=adapter, champion=champion, decision="rollback" if value >= 1 / alpha else "keep", evidence=value,
        share=share, requests=len(new.corrected), corrections=new.corrections,
        champion_requests=len(old.corrected), champion_corrections=old.corrections, time=now,
    )  # fmt: skip


def _corrected(store: StoreBase, since: float) -> frozenset[str]:
    """Ids of the interactions that were corrected since."""
    return frozenset(one.interaction for one in store.all(Correction, since=since))


def _arm(asked: Sequence[Interaction], corrected: frozenset[str]) -> Arm:
    return Arm(tuple(one.id in corrected for one in asked))
