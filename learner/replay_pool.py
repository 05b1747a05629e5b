"""Many users' replays: one after another here, or spread over processes; each user in an own encrypted store.

A store's passphrase is made here, used once and forgotten, unless the caller wants to keep the stores.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feedback.models import ModelFile
from learner.replay import Replayer, ReplaySpec
from learner.replay_log import Event, Pair
from learner.replay_metrics import UserReplay
from learner.spread import Tell, spread
from store.paths import Home
from store.protectors import Argon2Cost, KeyFile, Passphrase
from store.records import Consent
from store.store import Store

Users = Mapping[str, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to replay some users.

    Attributes:
        folder: where the users' stores go, one folder each.
        keep: the stores stay; their keys lie beside them, unprotected.
    """

    model: ModelFile
    spec: ReplaySpec
    regression: tuple[Pair, ...]
    folder: Path
    keep: bool = False


def replay_users(job: Job, users: Users, progress: Tell, *, processes: int = 1) -> list[UserReplay]:
    """Replay every user and return what was measured, in the users' order.

    Args:
        progress: called here with (user, "answer") for each event and (user, "learn") before each learning run.
        processes: 1 replays here; more spreads the users, the longest logs first.

    Raises:
        CorrigibleError: whatever a replay raises, also in another process.
    """
    lots = [(job, number, lot) for number, lot in enumerate(shares(users, processes))]
    by_name = {replay.user: replay for replay in spread(_replay_lot, lots, progress)}
    return [by_name[name] for name in users]


def _replay_lot(lot: tuple[Job, int, Users], progress: Tell) -> list[UserReplay]:
    """Replay some users one after another."""
    job, number, users = lot
    found = []
    with Replayer(job.model, job.spec, job.regression) as replayer:
        for place, (name, events) in enumerate(users.items(), 1):
            home = Home.at(job.folder / f"{number}-{place:03}")
            with fresh_store(home, keep=job.keep) as store:
                found.append(replayer.user(name, events, store, partial(progress, name)))
    return found


@contextmanager
def fresh_store(home: Home, *, keep: bool) -> Iterator[Store]:
    """Make an empty store whose owner agreed to logging and learning; its key dies with this process unless kept."""
    protector = KeyFile() if keep else Passphrase(secrets.token_hex(32), Argon2Cost.small())
    with Store.create(home, protector) as store:
        now = time.time()
        store.add_all([Consent(purpose=purpose, granted=True, time=now) for purpose in ("log", "learn")])
        yield store


def shares(users: Users, count: int) -> list[dict[str, Sequence[Event]]]:
    """Spread users over `count` lots of about equal length: longest log first, each to the lightest lot."""
    lots: list[dict[str, Sequence[Event]]] = [{} for _ in range(count)]
    for name in sorted(users, key=lambda name: -len(users[name])):
        lightest = min(lots, key=lambda lot: sum(map(len, lot.values())))
        lightest[name] = users[name]
    return [lot for lot in lots if lot]
