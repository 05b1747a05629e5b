"""`corrigible fleet init|up|enroll|nodes|revoke`: an operator's side of a fleet. Wiring only."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.base import Command
from cli.output import Report, emit, say, short, table, when
from cli.session import Session, confirm
from federation.claim import claim
from store.errors import NotInitialised, UsageError

if TYPE_CHECKING:
    from federation.plan import ServerFolder

EXITS = (10, 11, 13, 17)
F = TypeVar("F", bound=Callable[..., Any])


def server_option(function: F) -> F:
    """Add ``--server``, the fleet server's folder."""
    return click.option(
        "--server",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="CORRIGIBLE_FLEET_SERVER",
        help="The fleet server's folder (else CORRIGIBLE_FLEET_SERVER, else one below the home).",
    )(function)


def place_of(session: Session, server: Path | None) -> "ServerFolder":
    """Return where the fleet server is or would be."""
    from federation.plan import ServerFolder

    return ServerFolder(server or session.home.data / "fleet-server")


def open_server(session: Session, server: Path | None) -> "ServerFolder":
    """Return the fleet server's folder.

    Raises:
        NotInitialised: there is none.
    """
    folder = place_of(session, server)
    if not folder.charter.is_file():
        raise NotInitialised("There is no fleet server here.", hint="`corrigible fleet init` makes one.")
    return folder


@click.command(
    cls=Command,
    examples=["corrigible fleet init --operator 'Ward 7'", "corrigible fleet init --host fleet.example --bind 0.0.0.0"],
    exits=[13],
)
@server_option
@click.option("--operator", default="a desk fleet", show_default=True, help="Who runs it, as owners read it.")
@click.option("--contact", default="", help="How to reach the operator.")
@click.option("--host", default="localhost", show_default=True, help="Name or address that devices use.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8443, show_default=True, help="For devices.")
@click.option("--public-port", type=click.IntRange(0, 65535), default=0, help="If nginx stands before it, nginx's.")
@click.option("--console", type=click.IntRange(1, 65535), default=8444, show_default=True, help="Operator's page.")
@click.option("--superlink", type=click.IntRange(1, 65535), default=8445, show_default=True, help="Flower, loopback.")
@click.option("--quorum", type=click.IntRange(3), default=20, show_default=True, help="Fewest devices in a release.")
@click.option(
    "--interval", type=click.FloatRange(1), default=86400.0, show_default=True, help="Seconds between rounds."
)
@click.option(
    "--deadline", type=click.FloatRange(1), default=600.0, show_default=True, help="Longest wait for answers, seconds."
)
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True, help="Rounds that --epsilon is for.")
@click.option(
    "--epsilon",
    type=click.FloatRange(0, min_open=True),
    default=8.0,
    show_default=True,
    help="For those rounds together, per correction, at delta 1e-6.",
)
@click.option(
    "--rule",
    type=click.Choice(["mean", "trimmed", "median", "norm"]),
    default="mean",
    show_default=True,
    help="How updates are combined; all but mean bear a hostile minority.",
)
@click.option("--rollout", type=click.IntRange(0, 100), default=100, show_default=True, help="First share, percent.")
@click.option("--rate", type=click.FloatRange(1), default=50.0, show_default=True, help="Requests/s of one device.")
@click.option("--database", default="", help="URL of the state (else SQLite in the folder).")
@click.pass_obj
def init(session: Session, /, *, server: Path | None, quorum: int, deadline: float, **given: Any) -> Report:  # noqa: ANN401
    """Make a fleet server: its authority and certificates, its keys, its release repository, its settings.

    A quorum below 20 protects the members of a round less: an average of three tells more about each of them.
    """
    from federation.charter import Charter
    from federation.deploy import create_server
    from federation.release import fleet_identity
    from federation.standard import standard_plan
    from federation.state import FleetState
    from learner.base import load_base
    from store.files import write_atomic

    folder = place_of(session, server)
    if folder.charter.exists():
        raise UsageError(f"A fleet's server is in {folder.root} already.", hint="`corrigible fleet up` runs it.")
    model = session.model()
    rounds, epsilon, database, rule = (given.pop(name) for name in ("rounds", "epsilon", "database", "rule"))
    charter = Charter(**given)
    geometry = load_base(model, hold="blocks").geometry
    plan = standard_plan(model, geometry, rounds=rounds, devices=quorum, epsilon=epsilon)
    if database:
        FleetState.open(database)
    key = create_server(folder.root, hosts=tuple(dict.fromkeys(("localhost", "127.0.0.1", charter.host))))
    if database:
        write_atomic(folder.root / "state.url", [database.encode()])
    pace = replace(plan.pace, quorum=quorum, expected=quorum, deadline=deadline)
    replace(plan, rounds=1, pace=pace, rule=rule).write(folder.plan)
    charter.write(folder.charter)
    folder.state().log("fleet made", fleet=fleet_identity(key), operator=charter.operator)
    data: dict[str, Any] = {
        "fleet": fleet_identity(key),
        "folder": str(folder.root),
        "url": charter.url,
        "base": plan.base,
        "quorum": quorum,
        "rule": rule,
        "warning": None if quorum >= 20 else "small_quorum",
        "root_key": str(folder.root_key),
    }
    if quorum < 20:
        say(f"A quorum of {quorum} is for a desk: each average tells more about its few members than one of 20 would.")
    words = (
        f"Made fleet {short(data['fleet'])} in {folder.root}.\n"
        f"Move {folder.root_key} to a medium that is not this machine: it is needed only to change keys.\n"
        "Next: `corrigible fleet up`, and `corrigible fleet enroll NAME` for every device."
    )
    return Report(data, lambda: words)


@click.command(cls=Command, examples=["corrigible fleet up", "corrigible fleet up --json"], exits=[*EXITS, 130])
@server_option
@click.pass_obj
def up(session: Session, server: Path | None) -> Report:
    """Run the fleet server until Ctrl-C: Flower on loopback, the front for devices, rounds when they are due.

    It may be killed at any moment: the next start goes on with the round that was open, at no cost in epsilon.
    """
    from federation.charter import Charter
    from federation.up import Server

    folder = open_server(session, server)
    charter, asked = Charter.read(folder.charter), threading.Event()

    def tell(event: str, detail: dict[str, object]) -> None:
        if session.as_json:
            emit(Report({"event": event, **detail}, lambda: ""), True)
        else:
            say(f"{event}: " + ", ".join(f"{name} {value}" for name, value in detail.items()))

    running = Server(folder, charter, tell)
    tell("up", {"devices": charter.url, "console": f"http://127.0.0.1:{charter.console}/"})
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        running.run(lambda: not asked.is_set())
    finally:
        signal.signal(signal.SIGTERM, before)
    return Report({"event": "stopped"}, lambda: "Stopped.")


@click.command(cls=Command, examples=["corrigible fleet enroll 'Ada, laptop'"], exits=EXITS)
@click.argument("name")
@server_option
@click.option(
    "--days", type=click.FloatRange(0, min_open=True), default=7.0, show_default=True, help="Good for so long."
)
@click.pass_obj
def enroll(session: Session, name: str, server: Path | None, days: float) -> Report:
    """Print an invitation for one device, to be known as NAME; it is good once."""
    from federation.charter import Charter
    from federation.enrolment import Link, fingerprint, invite
    from federation.repository import root_of

    folder = open_server(session, server)
    token = invite(folder.state(), name, seconds=days * 86400)
    pinned = fingerprint(folder.authority.read_bytes(), root_of(folder))
    link = str(Link(Charter.read(folder.charter).url, pinned, token))
    data = {"name": name, "link": link, "expires": time.time() + days * 86400}
    return Report(data, lambda: link)


@click.command(cls=Command, examples=["corrigible fleet nodes", "corrigible fleet nodes --json"], exits=EXITS)
@server_option
@click.pass_obj
def nodes(session: Session, server: Path | None) -> Report:
    """List the devices ever enrolled, and which of them are online."""
    from federation.overview import online

    folder = open_server(session, server)
    here = online(folder)
    found = [
        {
            "name": node.name,
            "device": node.device,
            "node": str(node.node_id),
            "revoked": node.revoked,
            "online": None if here is None else node.node_id in here,
        }
        for node in folder.state().nodes()
    ]
    words = {None: "unknown", True: "online", False: "offline"}
    rows = [
        [str(one["name"]), str(one["device"])[:12], "revoked" if one["revoked"] else words[one["online"]]]  # type: ignore[index]
        for one in found
    ]
    return Report(
        {"nodes": found}, lambda: table("name", "device", "standing", rows=rows) if rows else "No devices yet."
    )


@click.command(cls=Command, examples=["corrigible fleet revoke 'Ada, laptop'"], exits=[*EXITS, 130])
@click.argument("device")
@server_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def revoke(session: Session, device: str, server: Path | None, yes: bool) -> Report:
    """Shut DEVICE (its name, or the beginning of its key) out, for good; its key cannot be enrolled again."""
    from federation.overview import one_node

    state = open_server(session, server).state()
    node = one_node(state, device)
    confirm(session, f"This shuts {node.name} out for good.", yes)
    state.revoke(node.device)
    state.log("revoked", device=node.device, name=node.name)
    return Report({"device": node.device, "name": node.name}, lambda: f"Revoked {node.name}.")


def server_status(session: Session, server: Path | None) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The fleet served from here, as data and as words; None when there is none."""
    from federation.overview import online, overview

    folder = place_of(session, server)
    if not folder.charter.is_file():
        if server is not None:
            open_server(session, server)
        return None
    view, here = overview(folder, folder.state()), online(folder)
    last = view.rounds[-1] if view.rounds else None
    newest = view.releases[-1] if view.releases else None
    data = {
        "fleet": view.fleet,
        "running": here is not None,
        "online": len(here) if here is not None else None,
        "enrolled": view.enrolled,
        "revoked": view.revoked,
        "halted": view.halted,
        "rounds": len(view.rounds),
        "last_round": last,
        "release": newest.round if newest else None,
        "epsilon_total": view.epsilon_total,
        "delta": view.delta,
        "unit": view.unit,
        "rejects": view.rejects,
        "audit": {"entries": view.audit, "whole": view.audit_whole},
    }
    rows = {
        "serving": f"fleet {short(view.fleet)}, " + (f"up, {len(here)} online" if here is not None else "not running"),
        "devices": f"{view.enrolled} enrolled, {view.revoked} revoked",
        "rounds": f"{len(view.rounds)}, released or not: {claim(view.epsilon_total, view.delta, view.unit)}"
        + (", halted" if view.halted else ""),
        "last round": f"{last['round']}: {last['verdict']}, {when(last['begun'])}" if last else "none yet",
        "release": f"round {newest.round}; when it was made {claim(newest.epsilon_total, view.delta, view.unit)}"
        if newest
        else "none",
        "audit log": f"{view.audit} entries, {'whole' if view.audit_whole else 'CHANGED'}",
    }
    return data, rows
