"""The demo's page: claims first, then who got better by how much, what left, and where the time went."""

from collections.abc import Sequence

from cli.demo.claims import Claim
from cli.demo.result import DemoResult
from cli.demo.show import tables
from cli.report.charts import Axis, Bars, bar_chart, bar_legend, nice_top
from cli.report.page import Picture, Tile, render
from cli.report.replay_tables import duration
from federation.claim import terms

ERRORS = (("base model", 0), ("personal adapter", 1), ("shared and personal", 2))


def demo_page(result: DemoResult, checked: Sequence[Claim]) -> str:
    """Return the whole page as HTML."""
    held = sum(one.holds for one in checked)
    return render(
        "demo.html",
        title="Corrigible: eight owners, one fleet, one newcomer",
        lead="Simulated owners with words of their own, served by llama.cpp from encrypted stores, corrected what was "
        "wrong, learned through the gate, and shared privately over real Flower processes. Every figure below was "
        "measured in this run.",
        headlines=_headlines(result, held, len(checked)),
        claims=checked,
        pictures=[_owners(result), _newcomer(result), _time(result)],
        tables=tables(result),
    )


def _headlines(result: DemoResult, held: int, count: int) -> list[Tile]:
    before, personal = (
        _mean([life.before.error for life in result.lives]),
        _mean([life.personal.error for life in result.lives]),
    )
    new = result.newcomer
    sent = sum(sum(one.sizes) for one in result.ledgers)
    return [
        Tile(f"{held} of {count}", "claims hold", "the command fails when one does not", held == count),
        Tile(f"{before:.1f} → {personal:.1f} %", "wrong on unseen requests", "mean over eight owners, own adapter",
             personal < before),
        Tile(f"{new.before.error:.1f} → {new.reception.exam.error:.1f} %", "wrong for the newcomer",
             "from the shared adapter alone", new.reception.exam.error < new.before.error),
        Tile(f"ε {result.epsilon:.2f}", f"at δ {result.delta:g} per {result.unit}, cap {result.cap:g}",
             terms(result.unit)),
        Tile(f"{sent / 1e3:,.0f} kB", "left the devices", "noised numbers of fixed size; none of it text"),
        Tile(duration(sum(result.seconds.values())), "from nothing to here", "two processor cores are enough"),
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _owners(result: DemoResult) -> Picture:
    groups = [
        Bars(life.name, (life.before.error, life.personal.error, received.exam.error))
        for life, received in zip(result.lives, result.received, strict=True)
    ]
    heading = "Every owner: wrong answers on requests never said before"
    chart = bar_chart(groups, ERRORS, y=Axis(100, "wrong", " %"), title=heading)
    caption = (
        "The third bar is what the device serves after its own gate has judged the shared adapter, adopted or not."
    )
    return Picture(heading, chart, caption, bar_legend(ERRORS))


def _newcomer(result: DemoResult) -> Picture:
    new, exam = result.newcomer, result.newcomer.reception.exam
    series = (("base model", 0), ("shared adapter alone", 2))
    groups = [
        Bars("wrong on unseen requests", (new.before.error, exam.error)),
        Bars("old skills, wrong", (100 - new.before.skills, 100 - exam.skills)),
    ]
    heading = f"{new.name}, who never took part"
    chart = bar_chart(groups, series, y=Axis(100, "wrong", " %"), title=heading, height=230)
    caption = "No correction of this device ever trained anything: it only judged the release on its own corrections."
    return Picture(heading, chart, caption, bar_legend(series))


def _time(result: DemoResult) -> Picture:
    groups = [Bars(f"{number}", (seconds,)) for number, seconds in enumerate(result.seconds.values(), 1)]
    heading = "Where the time went"
    top = nice_top(max(result.seconds.values()))
    chart = bar_chart(groups, (("seconds", 1),), y=Axis(top, "seconds", " s"), title=heading, height=200)
    stages = "; ".join(f"{number}: {words}" for number, words in enumerate(result.seconds, 1))
    return Picture(heading, chart, f"{stages}.")
