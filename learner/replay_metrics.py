"""What a replay measured, and the figures drawn from it. Pure: numbers in, numbers out, no text of anybody.

Two arms answer every request of a log: `off` is the base model for ever, `on` is the model that learns. Two more answer
where they are asked for, each with similar past answers in its prompt: `retrieval` is the base, `both` the learner.
An answer is right when it is exactly the logged one.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from store.records import Decision

Arm = Literal["off", "on", "retrieval", "both"]
ARMS: tuple[Arm, ...] = ("off", "on")
EVERY_ARM: tuple[Arm, ...] = (*ARMS, "retrieval", "both")
LATE = 0.6  # the part of a log from here on counts as its future
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request went in both arms."""

    request: str  # hash of the prompt
    off: bool  # the base model was right
    on: bool  # the learning model was right
    first: bool  # the user had never sent this prompt before
    retrieval: bool | None = None  # the base with past answers in the prompt; None: not asked
    both: bool | None = None  # the learning model with past answers in the prompt

    def right(self, arm: Arm) -> bool:
        """Whether the answer of `arm` was the logged one."""
        return bool(getattr(self, arm))


@dataclass(frozen=True, slots=True)
class Run:
    """One learning run: after how many answered requests it came, and how the gate decided."""

    at: int
    decision: Decision
    reason: str
    gain: float  # points
    lower: float
    upper: float
    evidence: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """Exact answers on the regression set after `at` requests, in percent."""

    at: int
    exact: float


@dataclass(frozen=True, slots=True)
class UserReplay:
    """Everything measured on one user's log."""

    user: str
    outcomes: tuple[Outcome, ...]
    runs: tuple[Run, ...] = ()
    checks: tuple[Check, ...] = ()
    rejects: int = 0  # thumbs-down events, not part of any error figure
    skipped: int = 0  # requests the model cannot take (longer than its context)
    serving: float = 0.0  # seconds
    learning: float = 0.0  # seconds

    def decisions(self, decision: Decision) -> int:
        """Number of learning runs that ended in `decision`."""
        return sum(run.decision == decision for run in self.runs)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of wrong answers: `wrong` of `count`."""

    wrong: int
    count: int

    @property
    def percent(self) -> float | None:
        """The share in percent, None when nothing was counted."""
        return 100.0 * self.wrong / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Figures:
    """The error figures of one arm on one log, or on several pooled."""

    all: Rate
    first: Rate  # prompts never seen before
    repeated: Rate  # prompts the user had sent before
    again: Rate  # prompts that had been corrected before: the same mistake once more
    late: Rate  # the last 40 % of each log
    late_first: Rate  # of those, the prompts never seen before
    to_fix: float | None  # median corrections of one prompt until it is right; inf: most never were
    unfixed: Rate  # prompts that came back after a correction and were never answered right


def measured(replays: Iterable[UserReplay]) -> tuple[Arm, ...]:
    """Return the arms that answered."""
    asked = any(outcome.both is not None for replay in replays for outcome in replay.outcomes)
    return EVERY_ARM if asked else ARMS


def figures(users: Iterable[Sequence[Outcome]], arm: Arm) -> Figures:
    """Return the pooled figures of `arm` over one or more users' outcomes, each in time order."""
    logs = [list(outcomes) for outcomes in users]
    flat = [outcome for log in logs for outcome in log]
    late = [outcome for log in logs for outcome in log[round(LATE * len(log)) :]]
    fixes = [fix for log in logs for fix in corrections_to_fix(log, arm)]
    return Figures(
        all=_rate(flat, arm),
        first=_rate([o for o in flat if o.first], arm),
        repeated=_rate([o for o in flat if not o.first], arm),
        again=_rate([o for log in logs for o in _after_correction(log, arm)], arm),
        late=_rate(late, arm),
        late_first=_rate([o for o in late if o.first], arm),
        to_fix=statistics.median_high(fixes) if fixes else None,
        unfixed=Rate(sum(fix == NEVER for fix in fixes), len(fixes)),
    )


def _rate(outcomes: Sequence[Outcome], arm: Arm) -> Rate:
    return Rate(sum(not outcome.right(arm) for outcome in outcomes), len(outcomes))


def _after_correction(log: Sequence[Outcome], arm: Arm) -> list[Outcome]:
    """The outcomes whose prompt had been answered wrong, and so corrected, earlier in the log."""
    corrected: set[str] = set()
    found = []
    for outcome in log:
        if outcome.request in corrected:
            found.append(outcome)
        if not outcome.right(arm):
            corrected.add(outcome.request)
    return found


def corrections_to_fix(log: Sequence[Outcome], arm: Arm) -> list[float]:
    """For each prompt that came back after a correction: corrections until first right, or `NEVER`.

    A prompt corrected once and never sent again had no chance to be right and is left out.
    """
    corrections: dict[str, int] = {}
    returned: dict[str, float] = {}
    for outcome in log:
        given = corrections.get(outcome.request, 0)
        if given and returned.get(outcome.request, NEVER) == NEVER:
            returned[outcome.request] = float(given) if outcome.right(arm) else NEVER
        if not outcome.right(arm):
            corrections[outcome.request] = given + 1
    return list(returned.values())


def windows(log: Sequence[Outcome], count: int, keep: Callable[[Outcome], bool]) -> list[list[Outcome]]:
    """Cut one log into `count` equal stretches and keep of each the outcomes that `keep` accepts."""
    edges = [round(index * len(log) / count) for index in range(count + 1)]
    return [[o for o in log[start:end] if keep(o)] for start, end in pairwise(edges)]


def curve(
    logs: Sequence[Sequence[Outcome]], arm: Arm, count: int, keep: Callable[[Outcome], bool] = lambda _: True
) -> list[float | None]:
    """Error in percent along the logs, in `count` stretches, as the mean over users (each user counts once)."""
    cut = [[_rate(part, arm).percent for part in windows(log, count, keep)] for log in logs]
    means: list[float | None] = []
    for column in zip(*cut, strict=True):
        known = [value for value in column if value is not None]
        means.append(statistics.fmean(known) if known else None)
    return means
