"""The demo's outcome as words for the terminal and as JSON; the page has its own."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.demo.claims import Claim
from cli.demo.result import DemoResult, Exam
from cli.output import table
from cli.report.page import Table
from cli.report.replay_tables import duration
from federation.claim import claim

if TYPE_CHECKING:
    from rich.console import RenderableType


def words(result: DemoResult, checked: Sequence[Claim]) -> "RenderableType":
    """Return the tables and the claims for a terminal."""
    from rich.console import Group
    from rich.text import Text

    shown = [table(*one.head, rows=one.rows, title=one.caption) for one in tables(result)]
    said = [Text.assemble(_word(one), f"  {one.words}\n      ", (one.evidence, "dim")) for one in checked]
    held = sum(one.holds for one in checked)
    end = Text(f"\n{held} of {len(checked)} claims hold; {duration(sum(result.seconds.values()))} in all.")
    return Group(*shown, *said, end)


def _word(claim: Claim) -> tuple[str, str]:
    return ("pass", "bold green") if claim.holds else ("FAIL", "bold red")


def tables(result: DemoResult) -> list[Table]:
    """Return owners, fleet and stages as tables."""
    return [owners_table(result), fleet_table(result), stages_table(result)]


def owners_table(result: DemoResult) -> Table:
    """Each owner's error on unseen requests: base, personal adapter, with the shared one; and the newcomer's."""
    head = ("owner", "requests", "corrected", "error on the base", "with personal", "with shared too",
            "old skills before", "after", "gate, personal", "gate, shared")  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (life.name, f"{life.requests}", f"{life.corrections}", _error(life.before), _error(life.personal),
         _error(received.exam), _skills(life.before), _skills(received.exam), life.verdict.decision,
         received.verdict.decision)
        for life, received in zip(result.lives, result.received, strict=True)
    ]  # fmt: skip
    new = result.newcomer
    rows.append((f"{new.name}, never took part", "", f"{new.corrections}", _error(new.before), "none",
                 _error(new.reception.exam), _skills(new.before), _skills(new.reception.exam), "none",
                 new.reception.verdict.decision))  # fmt: skip
    caption = "Wrong answers on requests never said before, percent; old skills: right answers, percent"
    return Table(caption, head, tuple(rows), frozenset({len(rows) - 1}))


def fleet_table(result: DemoResult) -> Table:
    """The rounds and what they cost."""
    head = ("round", "devices asked", "updates accepted", "bytes received", "seconds")
    rows = [
        (f"{one.number}", f"{one.asked}", f"{one.accepted}", f"{one.bytes_in:,}", f"{one.seconds:.1f}")
        for one in result.rounds
    ]
    cost = claim(result.epsilon, result.delta, result.unit)
    return Table(f"Federated rounds over real Flower processes, TLS on loopback; {cost}", head, tuple(rows))


def stages_table(result: DemoResult) -> Table:
    """Where the time went."""
    rows = [(words, f"{seconds:.1f}") for words, seconds in result.seconds.items()]
    return Table("Seconds", ("stage", "seconds"), tuple(rows))


def _error(exam: Exam) -> str:
    return f"{exam.error:.1f}"


def _skills(exam: Exam) -> str:
    return f"{exam.skills:.1f}"


def demo_data(result: DemoResult, checked: Sequence[Claim]) -> dict[str, Any]:
    """Return everything as JSON values; holds no request and no answer."""
    new = result.newcomer
    left = [{"device": one.name, "bytes": list(one.sizes), "digests": list(one.digests)} for one in result.ledgers]
    return {
        "claims": [asdict(one) for one in checked],
        "owners": [
            {
                "name": life.name,
                "requests": life.requests,
                "corrections": life.corrections,
                "error": {"base": life.before.error, "personal": life.personal.error, "shared": received.exam.error},
                "old_skills": {
                    "base": life.before.skills,
                    "personal": life.personal.skills,
                    "shared": received.exam.skills,
                },
                "gate": {"personal": life.verdict.decision, "shared": received.verdict.decision},
                "seconds": life.seconds,
            }
            for life, received in zip(result.lives, result.received, strict=True)
        ],
        "newcomer": {
            "name": new.name,
            "corrections": new.corrections,
            "error": {"base": new.before.error, "shared": new.reception.exam.error},
            "gate": new.reception.verdict.decision,
        },
        "rounds": [asdict(one) for one in result.rounds],
        "privacy": {"epsilon": result.epsilon, "delta": result.delta, "unit": result.unit, "cap": result.cap},
        "left": left,
        "scan": asdict(result.scan),
        "seconds": result.seconds,
    }
