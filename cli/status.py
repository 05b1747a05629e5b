"""`corrigible status`: what is stored, served and waiting. Loads no model and no torch."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from cli.background import holder
from cli.base import Command
from cli.output import Report, facts, short, when
from cli.session import SLOTS, Session
from federation.claim import TRUST, adjacency, claim
from learner.state import read
from store.base import StoreBase
from store.records import Adapter, Consent, Correction, Example, Interaction, Purpose, Rating, Spend, Verdict

PURPOSES: tuple[Purpose, ...] = ("log", "learn", "share", "upstream")


@click.command(cls=Command, examples=["corrigible status", "corrigible status --json"], exits=[10, 11, 12, 13])
@click.pass_obj
def status(session: Session) -> Report:
    """What is stored, served and waiting."""
    from cli.runtime import running

    with session.store() as store:
        data = overview(session, store)
    found = running(session.home)
    data["gateway"] = {"address": found.address, "process": found.process} if found else None
    return Report(data, lambda: facts(_words(data)))


def overview(session: Session, store: StoreBase) -> dict[str, Any]:
    """Return what is stored, served and waiting, as JSON values."""
    from store.keys import key_status

    key = key_status(session.home)
    model = session.config.model.path
    return {
        "home": str(session.home.data),
        "key": {"backend": key.backend, "warning": key.warning},
        "model": {"path": str(model) if model else None, "embedded": model is None},
        "counts": {kind.__name__.lower(): store.count(kind) for kind in (Interaction, Correction, Rating, Adapter)},
        "serving": {slot: store.active(slot) for slot in SLOTS},
        "learning": _learning(session, store),
        "consents": consents(store),
        "privacy": spent(store),
    }


def backlog(store: StoreBase) -> int:
    """Return how many corrected requests the serving personal adapter has not learned from."""
    digest = store.active("personal")
    serving = store.last(Adapter, digest=digest) if digest else None
    learned = set(serving.examples) if serving else set()
    fresh: list[Example] = [one for one in store.examples() if one.rejected is not None and one.id not in learned]
    return len({one.request for one in fresh})


def consents(store: StoreBase) -> dict[str, bool]:
    """Return the owner's word per purpose; sharing counts as granted when any destination has it."""
    newest = {(one.purpose, one.destination): one.granted for one in store.all(Consent)}
    return {purpose: any(granted for key, granted in newest.items() if key[0] == purpose) for purpose in PURPOSES}


def spent(store: StoreBase) -> dict[str, Any]:
    """Return what the privacy ledger adds up to."""
    newest = store.last(Spend)
    unit = newest.unit if newest else "correction"
    return {
        "runs": store.count(Spend),
        "epsilon": newest.total if newest else 0.0,
        "delta": newest.delta if newest else None,
        "unit": unit,
        "adjacency": adjacency(unit),
        "trust": TRUST[unit],
    }


def _learning(session: Session, store: StoreBase) -> dict[str, Any]:
    """Return what waits to be learned, who is learning, and how the last run ended."""
    verdict = store.last(Verdict)
    last = {"time": verdict.time, "decision": verdict.decision, "reason": verdict.reason} if verdict else None
    background = holder(session.home.lock("job-daemon"))
    return {
        "waiting": backlog(store),
        "every": session.config.learner.every,
        "background": background,
        "state": asdict(state) if background and (state := read(session.home)) else None,
        "running": holder(session.home.lock("job-learn")),
        "last": last,
    }


def doing(state: dict[str, Any] | None) -> str:
    """Return what the background learner does, for a person: "waiting: on battery, next look 14:20"."""
    if state is None:
        return "running"
    if state["state"] == "running":
        return f"learning: {state['phase'] or 'loading'}, step {state['step']} of {state['steps']}"
    clock = datetime.fromtimestamp(state["next_look"]).strftime("%H:%M") if state["next_look"] else "soon"
    return f"{state['state']}: {state['reason']}, next look {clock}"


def _words(data: dict[str, Any]) -> dict[str, str]:
    """Return the rows a person reads."""
    counts, learning, privacy = data["counts"], data["learning"], data["privacy"]
    last = learning["last"]
    spent = claim(privacy["epsilon"], privacy["delta"], privacy["unit"]) if privacy["runs"] else ""
    shared = f"{privacy['runs']} private runs; {spent}"
    return {
        "store": data["home"],
        "key": data["key"]["backend"] + (f" — {data['key']['warning']}" if data["key"]["warning"] else ""),
        "model": data["model"]["path"] or "embedded",
        "logged": f"{counts['interaction']} answers, {counts['correction']} corrections, {counts['rating']} ratings",
        "serving": ", ".join(f"{slot} {short(one)}" for slot, one in data["serving"].items() if one)
        or "the base model alone",
        "waiting": f"{learning['waiting']} corrected requests not learned yet",
        "learning": f"now, process {learning['running']}" if learning["running"] else "not now",
        "gateway": data["gateway"]["address"] if data["gateway"] else "not running",
        "background": doing(learning["state"]) if learning["background"] else "not running",
        "last run": f"{when(last['time'])} {last['decision']}: {last['reason']}" if last else "none",
        "consents": ", ".join(f"{name} {'on' if granted else 'off'}" for name, granted in data["consents"].items()),
        "sharing": shared if privacy["runs"] else "nothing left",
    }
