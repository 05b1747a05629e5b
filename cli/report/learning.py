"""What was learned over time: as JSON values, as words with a curve of blocks, and as pictures and tables of a page."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cli.output import short, when
from cli.report.charts import Axis, Line, Mark, line_chart, nice_top
from cli.report.page import HERE, Picture, Table
from learner.history import History, Run, totals
from store.records import LiveVerdict

if TYPE_CHECKING:
    from rich.console import RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
HEAD = ("ended", "verdict", "gain", "fixed", "broken", "learned", "wall", "cpu", "memory", "energy")


def data(found: History, limit: int) -> dict[str, Any]:
    """Return the newest `limit` runs, the curve and the totals as JSON values."""
    return {
        "runs": [_run(one) for one in found.runs[-limit:]],
        "live": [asdict(one) for one in found.live],
        "curve": [asdict(one) for one in found.curve],
        "totals": totals(found.runs),
    }


def words(found: History, limit: int) -> "RenderableType":
    """Return what a person reads in a terminal."""
    from rich.console import Group
    from rich.text import Text

    from cli.output import table

    if not found.runs:
        return "Nothing was learned yet."
    lines: list[RenderableType] = [table(*HEAD, rows=[_row(one) for one in found.runs[-limit:]])]
    lines += [Text(live_words(one)) for one in found.live[-limit:]]
    if found.curve:
        lines.append(Text(sentence(found)))
    return Group(*lines, Text(cost(found)))


def live_words(verdict: LiveVerdict) -> str:
    """Return what live use said of an adapter, for a person."""
    what = "rolled back" if verdict.decision == "rollback" else "kept"
    new, old = (
        f"{corrections} of {requests}"
        for corrections, requests in (
            (verdict.corrections, verdict.requests),
            (verdict.champion_corrections, verdict.champion_requests),
        )
    )
    return (
        f"{short(verdict.adapter)} {what} on live use: {new} answers corrected, {old} of the one before; "
        f"evidence of harm {verdict.evidence:.1f}, 20 is proof"
    )


def sentence(found: History) -> str:
    """The curve in one line: a block per stretch of answers, and its ends in numbers."""
    values = [point.corrected for point in found.curve]
    top = max(*values, 1.0)
    drawn = "".join(BLOCKS[min(7, int(8 * value / top))] for value in values)
    return f"corrected of 100 answers: {drawn}  {values[0]:.0f} at first, {values[-1]:.0f} lately"


def cost(found: History) -> str:
    """What all runs together cost, and each correction."""
    sums = totals(found.runs)
    told = f"{sums['joules'] / 3600:.1f} Wh" if sums["joules"] else "energy not told by this machine"
    each = ""
    if sums["corrections"]:
        each = f", {3600 * sums['cpu_hours'] / sums['corrections']:.1f} s of processor per correction learned"
    return (
        f"runs {sums['runs']:.0f}, adopted {sums['adopted']:.0f}: {60 * sums['wall_hours']:.0f} minutes, "
        f"{60 * sums['cpu_hours']:.0f} of processor, {sums['tokens']:,.0f} tokens, {told}{each}"
    )


def curve(found: History) -> Picture:
    """The picture: how many of 100 answers were corrected, with every change of what serves."""
    line = Line("corrected", tuple((float(one.answers), one.corrected) for one in found.curve))
    top = nice_top(max((one.corrected for one in found.curve), default=1.0))
    kinds = {"adopt": "adopt", "keep": "adopt", "wait": "wait"}
    marks = [
        Mark(float(one.answers), kinds.get(one.kind, "reject"), f"{one.kind} {short(one.adapter)}")
        for one in found.changes
    ]
    heading = "How many of 100 answers you corrected"
    chart = line_chart(
        [line], x=Axis(float(max(found.answers, 1)), "answers"), y=Axis(min(100.0, top), "corrected", " %"),
        title=heading, marks=marks,
    )  # fmt: skip
    caption = "A triangle is an adapter adopted, a cross one refused or rolled back, a circle one that has to wait."
    return Picture(heading, chart, caption)


def runs_table(found: History) -> Table:
    """Every run, newest first."""
    rows = tuple(tuple(_row(one)) for one in reversed(found.runs))
    return Table("Learning runs: what they cost, fixed and broke", HEAD, rows)


def standalone(chart: Markup) -> str:
    """Return a chart as a picture file of its own, with the page's style in it."""
    style = (HERE / "style.css").read_text(encoding="utf-8")
    opening, _, rest = str(chart).partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}'


def _run(one: Run) -> dict[str, Any]:
    """One run as JSON values."""
    verdict, receipt = one.verdict, one.receipt
    return {
        "time": one.time,
        "verdict": verdict.id if verdict else None,
        "decision": verdict.decision if verdict else "failed",
        "reason": verdict.reason if verdict else (receipt.code if receipt else ""),
        "adapter": (verdict.adapter or None) if verdict else None,
        "gain": verdict.gain if verdict else None,
        "receipt": asdict(receipt) if receipt else None,
    }


def _row(one: Run) -> list[str]:
    """One run as cells under `HEAD`."""
    verdict, paid = one.verdict, one.receipt
    judged = [verdict.decision, f"{verdict.gain:+.1f}"] if verdict else [f"failed: {paid.code if paid else ''}", ""]
    fixed = [str(len(verdict.fixed)), str(len(verdict.broken))] if verdict else ["", ""]
    if paid is None:
        return [when(one.time), *judged, *fixed, "", f"{verdict.seconds:.0f} s" if verdict else "", "", "", ""]
    return [
        when(one.time), *judged, *fixed, str(paid.corrections), f"{paid.wall:.0f} s", f"{paid.cpu:.0f} s",
        f"{paid.peak / 2**20:.0f} MiB", "" if paid.joules is None else f"{paid.joules:.0f} J",
    ]  # fmt: skip
