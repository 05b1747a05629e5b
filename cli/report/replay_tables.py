"""The figures of a replay as rows of words and as JSON; used by the terminal, the page and `--json`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cli.report.page import Table
from learner.replay_metrics import NEVER, Arm, Figures, Rate, UserReplay, figures, measured

TOGETHER = "together"
DASH = "–"
NAMES: Mapping[Arm, str] = {
    "off": "without learning", "on": "with learning", "retrieval": "past answers in the prompt", "both": "both",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplayMeta:
    """What was replayed and how; all public, no text of anybody."""

    log: str  # file name
    base: str  # file name of the GGUF
    model: str  # tagged hash of the GGUF
    learn_every: int
    learning: bool
    seed: int
    regression: str  # name of the regression set, "" when there is none
    regression_size: int
    faults: int
    seconds: float
    retrieve: int = 0  # past answers in the prompt of the two arms that are shown some; 0: no such arms


def tables_of(replays: Sequence[UserReplay], meta: ReplayMeta) -> list[Table]:
    """Return every table there is something to say in."""
    found = [error_table(replays, meta)]
    if meta.retrieve:
        found.append(arms_table(replays, meta))
    return [*found, *([learning_table(replays)] if meta.learning else [])]


def arms(replays: Sequence[UserReplay], meta: ReplayMeta) -> tuple[Arm, ...]:
    """Return the arms to show: without learning, those of the base."""
    return tuple(arm for arm in measured(replays) if meta.learning or arm in ("off", "retrieval"))


def arms_table(replays: Sequence[UserReplay], meta: ReplayMeta) -> Table:
    """Every way of answering, all users together."""
    head = ("", "error", "first-seen", "repeated", "same mistake again", "last 40 %", "last 40 %, first-seen")
    rows = []
    for arm in arms(replays, meta):
        one = figures([replay.outcomes for replay in replays], arm)
        rates = (one.all, one.first, one.repeated, one.again, one.late, one.late_first)
        rows.append((NAMES[arm], *(points(rate.percent) for rate in rates)))
    return Table("Learning against showing past answers, wrong answers in percent", head, tuple(rows))


def error_table(replays: Sequence[UserReplay], meta: ReplayMeta) -> Table:
    """Error without and with learning, per user and together."""
    head = ("user", "events", "corrections", "error", "first-seen", "repeated", "same mistake again",
            "corrections to fix", "last 40 %", "last 40 %, first-seen")  # fmt: skip
    rows = [_error_row(replay.user, [replay], meta.learning) for replay in replays]
    rows.append(_error_row(TOGETHER, replays, meta.learning))
    caption = "Wrong answers in percent, without → with learning" if meta.learning else "Wrong answers in percent"
    return Table(caption, head, tuple(rows), frozenset({len(rows) - 1}))


def _error_row(name: str, replays: Sequence[UserReplay], learning: bool) -> tuple[str, ...]:
    logs = [replay.outcomes for replay in replays]
    off, on = figures(logs, "off"), figures(logs, "on")
    pairs = [(off.all, on.all), (off.first, on.first), (off.repeated, on.repeated), (off.again, on.again)]
    late = [(off.late, on.late), (off.late_first, on.late_first)]
    return (
        name,
        f"{on.all.count:,}",
        f"{on.all.wrong:,}",
        *(_both(before, after, learning) for before, after in pairs),
        to_fix(on),
        *(_both(before, after, learning) for before, after in late),
    )


def learning_table(replays: Sequence[UserReplay]) -> Table:
    """What learning cost and how the gate decided, per user and together."""
    head = ("user", "learning runs", "adopted", "waited", "rejected", "regression set before", "after",
            "worst on the way", "serving", "learning")  # fmt: skip
    rows = [_learning_row(replay.user, [replay]) for replay in replays]
    rows.append(_learning_row(TOGETHER, replays))
    return Table("Learning runs, forgetting and time", head, tuple(rows), frozenset({len(rows) - 1}))


def _learning_row(name: str, replays: Sequence[UserReplay]) -> tuple[str, ...]:
    before, after, worst = forgetting(replays)
    return (
        name,
        f"{sum(len(replay.runs) for replay in replays)}",
        *(f"{sum(r.decisions(word) for r in replays)}" for word in ("adopt", "wait", "reject")),
        points(before),
        points(after),
        points(worst),
        duration(sum(replay.serving for replay in replays)),
        duration(sum(replay.learning for replay in replays)),
    )


def forgetting(replays: Sequence[UserReplay]) -> tuple[float | None, float | None, float | None]:
    """Return exact answers on the regression set in percent: before, after (mean over users), lowest at any time."""
    checked = [replay.checks for replay in replays if replay.checks]
    if not checked:
        return None, None, None
    before = math.fsum(checks[0].exact for checks in checked) / len(checked)
    after = math.fsum(checks[-1].exact for checks in checked) / len(checked)
    return before, after, min(check.exact for checks in checked for check in checks)


def _both(before: Rate, after: Rate, learning: bool) -> str:
    if not learning:
        return points(before.percent)
    if before.percent is None and after.percent is None:
        return DASH
    return f"{points(before.percent)} → {points(after.percent)}"


def points(value: float | None) -> str:
    """A percentage as shown: one digit after the point, a dash when nothing was measured."""
    return DASH if value is None else f"{value:.1f}"


def to_fix(measured: Figures) -> str:
    """Median corrections until right, as shown."""
    if measured.to_fix is None:
        return DASH
    return "not reached" if measured.to_fix == NEVER else f"{measured.to_fix:.0f}"


def duration(seconds: float) -> str:
    """Seconds as shown: ``8.4 s``, ``75 s``, ``12 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def replay_data(replays: Sequence[UserReplay], meta: ReplayMeta) -> dict[str, Any]:
    """Everything measured as JSON values, per user and together; holds no request and no answer."""
    return {
        **asdict(meta),
        "users": {replay.user: {**_figures_data([replay]), **_course(replay)} for replay in replays},
        TOGETHER: _figures_data(replays),
    }


def _figures_data(replays: Sequence[UserReplay]) -> dict[str, Any]:
    logs = [replay.outcomes for replay in replays]
    before, after, worst = forgetting(replays)
    return {
        **{arm: _arm_data(figures(logs, arm)) for arm in measured(replays)},
        "regression": {"before": before, "after": after, "lowest": worst},
        "decisions": {word: sum(r.decisions(word) for r in replays) for word in ("adopt", "wait", "reject")},
        "rejects": sum(replay.rejects for replay in replays),
        "skipped": sum(replay.skipped for replay in replays),
        "seconds": {"serving": sum(r.serving for r in replays), "learning": sum(r.learning for r in replays)},
    }


def _arm_data(measured: Figures) -> Mapping[str, Any]:
    rates = {"error": measured.all, "first_seen": measured.first, "repeated": measured.repeated,
             "same_mistake_again": measured.again, "late": measured.late, "late_first_seen": measured.late_first,
             "never_fixed": measured.unfixed}  # fmt: skip
    shown = {name: {"percent": rate.percent, "wrong": rate.wrong, "count": rate.count} for name, rate in rates.items()}
    median = None if measured.to_fix == NEVER else measured.to_fix
    return {**shown, "corrections_to_fix": median}


def _course(replay: UserReplay) -> Mapping[str, Any]:
    return {
        "runs": [asdict(run) for run in replay.runs],
        "checks": [asdict(check) for check in replay.checks],
        "right": {arm: "".join("01"[outcome.right(arm)] for outcome in replay.outcomes) for arm in measured([replay])},
    }
