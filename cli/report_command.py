"""`corrigible report`: one page on what was learned, what it cost, what was forgotten and what ever left."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Command
from cli.output import Report, say, short, when
from cli.session import Session
from federation.claim import claim, terms
from store.egress import folded, messages
from store.records import Egress, Erasure, LiveVerdict, Spend

if TYPE_CHECKING:
    from cli.report.page import Table, Tile
    from learner.history import History


@click.command(cls=Command, examples=["corrigible report", "corrigible report --to my-report"], exits=[10, 11, 12, 13])
@click.option(
    "--to", type=click.Path(file_okay=False, path_type=Path), default=Path("corrigible-report"), show_default=True,
    help="The folder for the page.",
)  # fmt: skip
@click.pass_obj
def report(session: Session, to: Path) -> Report:
    """Write a page on what was learned, spent and sent; numbers only."""
    from cli.report import learning
    from cli.report.page import render, write
    from learner.history import history

    with session.store() as store:
        found = history(store)
        forgotten, egress, spend = store.all(Erasure), store.all(Egress), store.last(Spend)
    page = render(
        "learning.html",
        title="Corrigible: what was learned",
        lead="From this device's own records. The page holds numbers and names of adapters, nothing that was said.",
        headlines=_headlines(found, egress, spend),
        pictures=[learning.curve(found)] if found.curve else [],
        tables=[
            learning.runs_table(found),
            *_optional(_live(found.live), _forgotten(forgotten), _left(egress, spend)),
        ],
        sentence=learning.cost(found),
    )
    data = {**learning.data(found, len(found.runs) or 1), "erasures": [json.loads(one.body) for one in forgotten]}
    path = write(to, {"index.html": page, "report.json": json.dumps(data, indent=1) + "\n"})
    say(f"The report is in {path}.")
    return Report({"page": str(path), **data["totals"]}, lambda: "")


def _headlines(found: "History", egress: list[Egress], spend: Spend | None) -> "list[Tile]":
    from cli.report.page import Tile
    from learner.history import totals

    sums, curve = totals(found.runs), found.curve
    adopted = f"{sums['adopted']:.0f} of {sums['runs']:.0f}"
    tiles = [Tile(adopted, "runs gave an adapter", "the others are kept, refused")]
    if len(curve) > 1:
        first, last = curve[0].corrected, curve[-1].corrected
        shares = f"{first:.0f} → {last:.0f} %"
        tiles.append(Tile(shares, "of the answers corrected", "first and last stretch", last < first))
    peak = f"{sums['peak_bytes'] / 2**20:.0f} MiB at most"
    tiles.append(Tile(f"{60 * sums['wall_hours']:.0f} min", "of learning", peak))
    sent = sum(one.size for one in messages(egress))
    unit = claim(spend.total, spend.delta, spend.unit) if spend else "nothing was ever shared"
    tiles.append(Tile(f"{sent / 1000:,.1f} kB", "left the device", unit))
    return tiles


def _optional(*tables: "Table") -> "list[Table]":
    """Those that have rows."""
    return [one for one in tables if one.rows]


def _live(live: tuple[LiveVerdict, ...]) -> "Table":
    from cli.report.page import Table

    rows = tuple(
        (
            when(one.time), short(one.adapter), one.decision, f"{one.corrections} of {one.requests}",
            f"{one.champion_corrections} of {one.champion_requests}", f"{one.evidence:.1f}",
        )
        for one in live
    )  # fmt: skip
    head = ("time", "adapter", "decision", "corrected", "of the one before", "evidence of harm (20 is proof)")
    return Table("In live use", head, rows)


def _forgotten(erasures: list[Erasure]) -> "Table":
    from cli.report.page import Table

    def row(one: Erasure) -> tuple[str, ...]:
        body: dict[str, Any] = json.loads(one.body)
        told = " → ".join(f"{body[when]['mean']:+.2f}" for when in ("before", "after") if body[when])
        return (when(one.time), str(body["removed"]), str(len(body["destroyed"])), told, one.signature[:16])

    head = ("time", "records destroyed", "adapters destroyed", "nats above a twin", "signature")
    return Table("Forgotten", head, tuple(row(one) for one in erasures))


def _left(egress: list[Egress], spend: Spend | None) -> "Table":
    from cli.report.page import Table

    rows = tuple(
        (when(one.time), one.purpose, one.destination, f"{one.size:,}", f"{one.epsilon:.2f}", short(one.payload))
        for one in folded(egress)
    )
    cost = f"; epsilon at delta {spend.delta:g} per {spend.unit} ({terms(spend.unit)})" if spend else ""
    return Table(f"Everything that ever left{cost}", ("time", "purpose", "to", "bytes", "epsilon", "digest"), rows)
