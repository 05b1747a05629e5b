"""The replay's page: error over time with and without learning, per user and together, forgetting, time, tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cli.report.charts import Axis, Bars, Line, Mark, bar_chart, bar_legend, line_chart, line_legend
from cli.report.page import Picture, Tile, render
from cli.report.replay_tables import (
    NAMES,
    ReplayMeta,
    arms,
    duration,
    forgetting,
    points,
    tables_of,
    to_fix,
)
from learner.replay_metrics import Arm, Figures, Outcome, UserReplay, curve, figures

Keep = Callable[[Outcome], bool]
TONES: dict[Arm, int] = {"off": 0, "on": 1, "retrieval": 3, "both": 2}
KINDS = (
    ("all", "all"),
    ("never seen before", "first"),
    ("sent before", "repeated"),
    ("corrected before", "again"),
    ("last 40 %", "late"),
)
SHAPES = {
    "adopt": ("M2 12L8 2L14 12Z", "adopted"),
    "wait": ("M4 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "waited for more evidence"),
    "reject": ("M3 2L13 12M3 12L13 2", "refused by the gate"),
}
STRETCHES = 20  # along the log, all users together
SMALL = (330, 190)  # size of a user's own picture


@dataclass(frozen=True, slots=True)
class _UserCard:
    name: str
    note: str
    chart: Markup


def replay_page(replays: Sequence[UserReplay], meta: ReplayMeta) -> str:
    """Return the whole page as HTML."""
    shown = arms(replays, meta)
    return render(
        "replay.html",
        title=f"Replay of {meta.log}",
        lead=_lead(replays, meta),
        headlines=_headlines(replays, meta),
        pictures=_pictures(replays, meta, shown),
        signs=_signs(shown),
        users=[_card(replay, shown) for replay in replays],
        users_caption="Share of wrong answers in stretches of the user's own log. Signs on the axis are learning runs.",
        tables=tables_of(replays, meta),
        method=_method(meta),
    )


def _lead(replays: Sequence[UserReplay], meta: ReplayMeta) -> str:
    events = sum(len(replay.outcomes) for replay in replays)
    how = f"learning every {meta.learn_every} corrections" if meta.learning else "with learning off"
    return (
        f"{events:,} requests of {_many(len(replays), 'user')}, answered by {meta.base} in time order, {how}, "
        f"seed {meta.seed}. A wrong answer was corrected by the log; a right one was approved."
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _headlines(replays: Sequence[UserReplay], meta: ReplayMeta) -> list[Tile]:
    logs = [replay.outcomes for replay in replays]
    off, on = figures(logs, "off"), figures(logs, "on")
    if not meta.learning:
        return [Tile(f"{points(off.all.percent)} %", "wrong answers", "learning was off")]
    worse = sum(_worse(replay) for replay in replays)
    tiles = [
        _change("wrong answers, whole log", off, on, "all"),
        _change("on prompts never seen before", off, on, "first"),
        _change("same mistake after a correction", off, on, "again"),
        Tile(to_fix(on), "corrections until right (median)", f"without learning: {to_fix(off)}"),
        Tile(f"{worse} of {len(replays)}", "users worse off with learning", "over their whole log", worse == 0),
    ]
    before, after, _ = forgetting(replays)
    if before is not None and after is not None:
        note = f"exact on {meta.regression} at the end, mean over users; at most 1 point may be lost"
        tiles.append(Tile(f"{before:.1f} → {after:.1f} %", "old skills", note, after >= before - 1))
    return tiles


def _worse(replay: UserReplay) -> bool:
    off, on = figures([replay.outcomes], "off"), figures([replay.outcomes], "on")
    return on.all.wrong > off.all.wrong


def _change(label: str, off: Figures, on: Figures, field: str) -> Tile:
    before, after = getattr(off, field), getattr(on, field)
    good = None if before.percent is None or after.percent is None else after.percent < before.percent
    return Tile(f"{points(before.percent)} → {points(after.percent)} %", label, f"{after.count:,} requests", good)


def _pictures(replays: Sequence[UserReplay], meta: ReplayMeta, arms: Sequence[Arm]) -> list[Picture]:
    shown = [
        _together("Error over time, all requests", replays, arms, lambda _: True),
        _together("Error over time, prompts never seen before", replays, arms, lambda outcome: outcome.first),
        _kinds(replays, arms),
    ]
    if any(replay.checks for replay in replays) and meta.learning:
        shown.append(_regression(replays, meta))
    return shown


def _together(heading: str, replays: Sequence[UserReplay], arms: Sequence[Arm], keep: Keep) -> Picture:
    logs = [replay.outcomes for replay in replays]
    lines = []
    for arm in arms:
        means = curve(logs, arm, STRETCHES, keep)
        lines.append(Line(NAMES[arm], _spread(means, 100), TONES[arm], arm == "off"))
    chart = line_chart(lines, x=Axis(100, "share of each user's log", " %"), y=Axis(100, "wrong", " %"), title=heading)
    who = _many(len(replays), "user")
    caption = f"Wrong answers in each twentieth of the log, mean over {who}; every user counts the same."
    return Picture(heading, chart, caption, line_legend(lines))


def _kinds(replays: Sequence[UserReplay], arms: Sequence[Arm]) -> Picture:
    logs = [replay.outcomes for replay in replays]
    measured = [figures(logs, arm) for arm in arms]
    groups = [Bars(name, tuple(getattr(one, field).percent for one in measured)) for name, field in KINDS]
    heading = "Error by kind of request"
    series = [(NAMES[arm], TONES[arm]) for arm in arms]
    chart = bar_chart(groups, series, y=Axis(100, "wrong", " %"), title=heading)
    caption = "Pooled over all requests of all users, so heavy users weigh more here than in the lines above."
    return Picture(heading, chart, caption, bar_legend(series))


def _regression(replays: Sequence[UserReplay], meta: ReplayMeta) -> Picture:
    heading = f"Old skills: exact answers on {meta.regression}"
    lines = []
    for replay in replays:
        total = max(len(replay.outcomes), 1)
        steps = [(100 * check.at / total, check.exact) for check in replay.checks]
        lines.append(Line(replay.user, (*steps, (100.0, steps[-1][1])) if steps else (), 2))
    chart = line_chart(
        lines, x=Axis(100, "share of each user's log", " %"), y=Axis(100, "exact", " %"), title=heading, height=220
    )
    what = f"{meta.regression_size} requests each time, measured after every adopted adapter"
    caption = f"One line per user, {what}. Flat is good."
    return Picture(heading, chart, caption)


def _card(replay: UserReplay, arms: Sequence[Arm]) -> _UserCard:
    total = max(len(replay.outcomes), 1)
    count = max(4, min(STRETCHES, total // 15))
    lines = [
        Line(
            NAMES[arm],
            _spread(curve([replay.outcomes], arm, count), total),
            TONES[arm],
            arm == "off",
        )
        for arm in arms
    ]
    marks = [Mark(run.at, run.decision, f"{run.decision} after {run.at} requests") for run in replay.runs]
    width, height = SMALL
    title = f"Error of {replay.user} over time"
    axes = {"x": Axis(total, "requests"), "y": Axis(100, "wrong", " %")}
    chart = line_chart(lines, **axes, title=title, marks=marks, width=width, height=height)
    return _UserCard(replay.user, _note(replay, arms), chart)


def _spread(means: Sequence[float | None], length: float) -> tuple[tuple[float, float | None], ...]:
    """Place equal stretches' values at their middles along an axis of `length`."""
    return tuple((length * (place + 0.5) / len(means), mean) for place, mean in enumerate(means))


def _note(replay: UserReplay, arms: Sequence[Arm]) -> str:
    errors = [f"{points(figures([replay.outcomes], arm).all.percent)} %" for arm in arms]
    return f"{len(replay.outcomes):,} requests, wrong {' → '.join(errors)}"


_SIGN = Markup('<li><svg width="16" height="14" aria-hidden="true"><path class="mark {}" d="{}"/></svg> {}</li>')


def _signs(arms: Sequence[Arm]) -> Markup:
    if "on" not in arms:
        return Markup("")
    items = Markup("").join(_SIGN.format(kind, path, words) for kind, (path, words) in SHAPES.items())
    return Markup('<ul class="legend">{}</ul>').format(items)


def _method(meta: ReplayMeta) -> list[str]:
    told = [
        "Every user has an own encrypted store and starts from the same base. Requests are answered greedily by "
        "llama.cpp before the log's answer is shown to anything that learns, so every figure is on requests not yet "
        "learned from at that moment. An answer counts as right only when it is exactly the logged one.",
        "“Never seen before” means that the user had not sent the very same text earlier. “Corrected before” means "
        "that the same text had been answered wrong, and corrected, earlier in the same arm. “Corrections until "
        "right” is the median over prompts that came back after a correction; those never answered right count as "
        "above any number.",
        f"Base {meta.base}, {meta.model[:19]}…; seed {meta.seed}; whole run {duration(meta.seconds)}.",
    ]
    if meta.retrieve:
        told.append(
            f"“Past answers in the prompt”: up to {meta.retrieve} earlier requests of the same user that are most like "
            "the new one (Okapi BM25 on words), each with its right answer, come before it as turns of the "
            "conversation. What “both” adds is the adapter of the arm that learns."
        )
    if meta.faults:
        told.append(f"{_many(meta.faults, 'line')} of the log could not be used and was left out.")
    return told
