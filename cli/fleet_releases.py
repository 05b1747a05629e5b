"""`corrigible fleet release list|show|promote|withdraw`: an operator's releases. Wiring only."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.base import Group
from cli.fleet_server import EXITS, open_server, server_option
from cli.output import Report, facts, short, table, when
from cli.session import Session, confirm
from federation.claim import claim, terms


@click.group("release", cls=Group, examples=["corrigible fleet release list", "corrigible fleet release withdraw 7"])
def release() -> None:
    """List, show, widen and withdraw releases."""


@release.command(
    "list", examples=["corrigible fleet release list", "corrigible fleet release list --json"], exits=EXITS
)
@server_option
@click.pass_obj
def list_(session: Session, server: Path | None) -> Report:
    """List every release: devices averaged, epsilon so far, and how far it is out."""
    from federation.overview import overview

    folder = open_server(session, server)
    view = overview(folder, folder.state())
    found = view.releases
    rows = [
        [
            str(one.round),
            short(one.id),
            when(one.time),
            str(one.cohort),
            f"{one.epsilon_total:.3f}",
            one.status if one.status == "withdrawn" else f"{one.rollout} %",
        ]
        for one in found
    ]
    columns = ("round", "release", "made", "devices", "epsilon so far", "reach")
    data = {"releases": [asdict(one) for one in found]}
    title = f"epsilon at delta {view.delta:g} per {view.unit} ({terms(view.unit)})"
    return Report(data, lambda: table(*columns, rows=rows, title=title) if rows else "No release yet.")


@release.command(examples=["corrigible fleet release show 7"], exits=[*EXITS, 18])
@click.argument("name")
@server_option
@click.pass_obj
def show(session: Session, name: str, server: Path | None) -> Report:
    """Show what the signed manifest of release NAME (its round, or the beginning of its id) says."""
    from federation.overview import manifest_of
    from federation.pki import load_signing_key, public_bytes
    from federation.plan import Plan
    from federation.publishing import find

    folder = open_server(session, server)
    row = find(folder.state(), name)
    key = public_bytes(load_signing_key(folder.release_key))
    manifest = manifest_of(folder, row, key, Plan.read(folder.plan).base)
    data = {"id": manifest.id, "status": row.status, "rollout": row.percent, "manifest": asdict(manifest)}
    rows = {
        "release": manifest.id,
        "round": f"{manifest.round}, {when(manifest.time)}",
        "parent": short(manifest.parent) if manifest.parent else "none",
        "base": short(manifest.base),
        "devices": str(manifest.cohort),
        "adapter": f"{short(manifest.adapter)}, {manifest.size:,} bytes, norm at most {manifest.max_norm:.3f}",
        "this round": claim(manifest.epsilon, manifest.delta, manifest.mechanism.unit),
        "with all before": claim(manifest.epsilon_total, manifest.delta, manifest.mechanism.unit),
        "seed of A": str(manifest.mechanism.seed_a),
        "reach": "withdrawn" if row.status == "withdrawn" else f"{row.percent} % of devices",
    }
    return Report(data, lambda: facts(rows))


@release.command(examples=["corrigible fleet release promote 7 --percent 50"], exits=[*EXITS, 18])
@click.argument("name")
@server_option
@click.option("--percent", type=click.IntRange(0, 100), default=100, show_default=True, help="Share of devices.")
@click.pass_obj
def promote(session: Session, name: str, server: Path | None, percent: int) -> Report:
    """Let release NAME reach a larger share of the devices."""
    from federation.publishing import promote as widen

    folder = open_server(session, server)
    row = widen(folder, folder.state(), name, percent)
    data = {"release": row.id, "round": row.number, "rollout": row.percent}
    return Report(data, lambda: f"Round {row.number} reaches {row.percent} % of the devices.")


@release.command(examples=["corrigible fleet release withdraw 7"], exits=[*EXITS, 18, 130])
@click.argument("name")
@server_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def withdraw(session: Session, name: str, server: Path | None, yes: bool) -> Report:
    """Take release NAME, and all built on it, back: devices stop serving it at their next look.

    The release before it is signed again as the newest; rounds go on from there.
    """
    from federation.publishing import find
    from federation.publishing import withdraw as take_back

    folder = open_server(session, server)
    state = folder.state()
    row = find(state, name)
    confirm(session, f"This withdraws round {row.number} and everything built on it.", yes)
    going, again = take_back(folder, state, name)
    data = {"withdrawn": [one.number for one in going], "release": again.manifest.id, "round": again.manifest.round}
    words = f"Withdrew {', '.join(str(one.number) for one in going)}; round {again.manifest.round} replaces them."
    return Report(data, lambda: words)
