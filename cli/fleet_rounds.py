"""`corrigible fleet round start|status|halt|resume`: an operator's word to the rounds. Wiring only."""

import time
from pathlib import Path
from typing import Any

import click

from cli.base import Group
from cli.fleet_server import EXITS, open_server, server_option
from cli.output import PARTLY, Report, table
from cli.session import Session
from store.errors import NetworkError, NotEligible

COLUMNS = ("round", "verdict", "asked", "accepted", "missing")


@click.group("round", cls=Group, examples=["corrigible fleet round start --wait", "corrigible fleet round halt"])
def round_() -> None:
    """Begin, watch, stop and resume the fleet's rounds."""


@round_.command(
    examples=["corrigible fleet round start", "corrigible fleet round start --wait"], exits=[3, *EXITS, 15, 130]
)
@server_option
@click.option("--wait", is_flag=True, help="Stay until it has ended; exit code 3 when it made no release.")
@click.option("--timeout", type=click.FloatRange(1), default=1800.0, show_default=True, help="Longest stay, seconds.")
@click.pass_obj
def start(session: Session, server: Path | None, wait: bool, timeout: float) -> Report:
    """Begin a round as soon as enough devices are online."""
    from federation.charter import Charter
    from federation.plan import Plan
    from federation.server import HALTED
    from federation.state import OPEN
    from federation.up import WANTED, reachable

    folder = open_server(session, server)
    reachable(Charter.read(folder.charter), folder)
    state = folder.state()
    if state.get(HALTED):
        raise NotEligible("The fleet is halted.", hint="`corrigible fleet round resume` ends that.", code="halted")
    known = sum(entry.verdict not in OPEN for entry in state.rounds())
    state.put(WANTED, "yes")
    state.log("round wanted")
    if not wait:
        return Report({"wanted": True}, lambda: "A round begins as soon as enough devices are online.")
    end = time.monotonic() + timeout
    while len(done := [entry for entry in state.rounds() if entry.verdict not in OPEN]) <= known:
        if time.monotonic() > end:
            word, quorum = "ended" if state.unfinished() else "begun", Plan.read(folder.plan).pace.quorum
            raise NetworkError(
                f"The round has not {word} in time.",
                hint=f"It takes {quorum} devices; `corrigible fleet nodes` shows who is online.",
            )
        time.sleep(0.5)
    report = _plain(done[-1].report, done[-1].verdict)
    return Report(report, lambda: _table([report]), 0 if done[-1].verdict == "released" else PARTLY)


@round_.command(examples=["corrigible fleet round status", "corrigible fleet round status --json"], exits=EXITS)
@server_option
@click.option("--last", type=click.IntRange(1), default=10, show_default=True, help="So many rounds.")
@click.pass_obj
def status(session: Session, server: Path | None, last: int) -> Report:
    """Show the last rounds: who answered, who was refused and why, what became of them."""
    from federation.server import HALTED

    state = open_server(session, server).state()
    rounds = [_plain(entry.report, entry.verdict) for entry in state.rounds()[-last:]]
    data = {"halted": bool(state.get(HALTED)), "rounds": rounds}
    words = "The fleet is halted." if data["halted"] else ""
    return Report(data, lambda: _table(rounds, words) if rounds else words or "No round yet.")


@round_.command(examples=["corrigible fleet round halt"], exits=EXITS)
@server_option
@click.pass_obj
def halt(session: Session, server: Path | None) -> Report:
    """Stop: the round in hand ends without a release, and none begins until `resume`."""
    return _switch(session, server, halted=True)


@round_.command(examples=["corrigible fleet round resume"], exits=EXITS)
@server_option
@click.pass_obj
def resume(session: Session, server: Path | None) -> Report:
    """Let rounds begin again."""
    return _switch(session, server, halted=False)


def _switch(session: Session, server: Path | None, *, halted: bool) -> Report:
    """Set the switch that the rounds obey."""
    from federation.server import HALTED

    state = open_server(session, server).state()
    state.put(HALTED, "yes" if halted else "")
    state.log("halted" if halted else "resumed")
    return Report({"halted": halted}, lambda: "Halted." if halted else "Rounds may begin again.")


def _plain(report: Any, verdict: str) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    """A report with its verdict."""
    return {**report, "verdict": verdict}


def _table(rounds: list[dict[str, Any]], title: str = "") -> Any:  # noqa: ANN401 - rich's table
    """Rounds as a table."""
    rows = []
    for one in rounds:
        refused = ", ".join(f"{reason} {count}" for reason, count in dict(one.get("rejected", {})).items())
        said_no = ", ".join(f"{word} {count}" for word, count in dict(one.get("declined", {})).items())
        rows.append([*(str(one.get(name, "")) for name in COLUMNS), said_no, refused])
    return table(*COLUMNS, "declined", "refused", rows=rows, title=title)
