"""`corrigible adapter`: what was learned, the evidence, and the way back."""

from dataclasses import asdict
from typing import Any

import click

from cli.base import Group
from cli.output import Report, facts, short, table, when
from cli.session import SLOTS, Session, confirm, served
from store.base import StoreBase
from store.errors import IntegrityError, NotEligible, UsageError
from store.records import Adapter, Slot, Verdict

EXITS = (10, 11, 12, 13)


@click.group(cls=Group, examples=["corrigible adapter list", "corrigible adapter rollback"])
def adapter() -> None:
    """List, show, choose and roll back adapters."""


@adapter.command("list", examples=["corrigible adapter list"], exits=EXITS)
@click.pass_obj
def list_(session: Session) -> Report:
    """List every adapter this device made or received, rejected ones too."""
    with session.store() as store:
        serving = served(store)
        views = [view(one, verdict_of(store, one), one.digest in serving) for one in store.all(Adapter)]
    rows = [
        [
            short(one["digest"]),
            one["slot"],
            when(one["time"]),
            str(one["examples"]),
            one["decision"] or "not judged",
            "" if one["gain"] is None else f"{one['gain']:+.1f}",
            "serving" if one["serving"] else "",
        ]
        for one in views
    ]
    columns = ("id", "slot", "made", "examples", "verdict", "gain", "")
    return Report({"adapters": views}, lambda: table(*columns, rows=rows) if rows else "No adapter yet.")


@adapter.command(examples=["corrigible adapter show 9f86d081"], exits=EXITS)
@click.argument("digest", metavar="ID")
@click.pass_obj
def show(session: Session, digest: str) -> Report:
    """Show one adapter: its parents and the evidence it was judged by."""
    with session.store() as store:
        one = find(store, digest)
        verdict = verdict_of(store, one)
        summary = view(one, verdict, one.digest in served(store))
        size = len(store.artefact(one.digest))
    evidence = asdict(verdict) | {"id": verdict.id} if verdict else None
    data = {**summary, "base": one.base, "parent": one.parent, "shared": one.shared, "bytes": size, "verdict": evidence}
    return Report(data, lambda: _show_words(one, verdict, summary["serving"], size))


@adapter.command(
    examples=["corrigible adapter rollback", "corrigible adapter rollback --slot shared"], exits=[*EXITS, 15]
)
@click.option("--slot", type=click.Choice(SLOTS), default="personal", show_default=True)
@click.pass_obj
def rollback(session: Session, slot: Slot) -> Report:
    """Serve what was served before the newest adoption."""
    from learner.lineage import rollback as back

    with session.store() as store:
        before = store.active(slot)
        if before is None:
            hint = "`corrigible adapter list` shows what there is."
            raise NotEligible("Nothing is served in this slot.", hint=hint, code="nothing_served")
        after = back(store, slot)
    data = {"slot": slot, "before": before, "after": after}
    return Report(data, lambda: f"Now serving {short(after) if after else 'no adapter'} instead of {short(before)}.")


@adapter.command(
    examples=["corrigible adapter use 9f86d081", "corrigible adapter use none --slot personal"], exits=EXITS
)
@click.argument("digest", metavar="ID|none")
@click.option("--slot", type=click.Choice(SLOTS), help="The slot to empty with `none`.")
@click.option("--yes", is_flag=True, help="Do not ask, even when the gate refused this adapter.")
@click.pass_obj
def use(session: Session, digest: str, slot: Slot | None, yes: bool) -> Report:
    """Serve the adapter ID, or none, by your own word."""
    chosen: str | None = None
    with session.store() as store:
        if digest == "none":
            place = slot or "personal"
        else:
            one = find(store, digest)
            chosen, place = one.digest, one.slot
            if slot not in (None, place):
                raise UsageError(f"This adapter belongs to the slot {place}.", hint="Leave --slot out.")
            _fitting(session, store, one)
            verdict = verdict_of(store, one)
            if verdict is None or verdict.decision != "adopt":
                confirm(session, "The gate has not adopted this adapter.", yes)
        store.activate(place, chosen, "chosen by the owner")
    words = f"Now serving {short(chosen) if chosen else 'no adapter'}."
    return Report({"slot": place, "adapter": chosen}, lambda: words)


def find(store: StoreBase, name: str) -> Adapter:
    """Return the newest adapter whose digest begins with `name` (8 hex digits or more).

    Raises:
        UsageError: there is none, or `name` is too short.
    """
    prefix = name.removeprefix("sha256:")
    found = {one.digest: one for one in store.all(Adapter) if one.digest.removeprefix("sha256:").startswith(prefix)}
    if len(prefix) < 8 or len(found) != 1:
        hint = "`corrigible adapter list` shows them; give 8 digits or more."
        raise UsageError("No single adapter has this id.", hint=hint, code="not_found")
    return next(iter(found.values()))


def verdict_of(store: StoreBase, one: Adapter) -> Verdict | None:
    """Return the newest verdict on an adapter."""
    return store.last(Verdict, adapter=one.digest)


def view(one: Adapter, verdict: Verdict | None, serving: bool) -> dict[str, Any]:
    """Return an adapter as JSON values."""
    return {
        "digest": one.digest,
        "slot": one.slot,
        "time": one.time,
        "examples": len(one.examples),
        "release": one.release,
        "serving": serving,
        "decision": verdict.decision if verdict else None,
        "reason": verdict.reason if verdict else None,
        "gain": verdict.gain if verdict else None,
    }


def _fitting(session: Session, store: StoreBase, one: Adapter) -> None:
    """Refuse an adapter of another base, or one whose bytes are damaged."""
    store.artefact(one.digest)
    if one.base != session.model().digest:
        hint = "Serve the model it was made for (`[model] path` in the settings)."
        raise IntegrityError("This adapter belongs to another base model.", hint=hint, code="wrong_base")


def _show_words(one: Adapter, verdict: Verdict | None, serving: bool, size: int) -> Any:  # noqa: ANN401
    """Return what a person sees of one adapter."""
    from rich.console import Group as Lines

    rows = {
        "id": one.digest,
        "slot": one.slot + (" (serving)" if serving else ""),
        "made": when(one.time),
        "learned from": f"{len(one.examples)} examples",
        "size": f"{size / 1000:.1f} kB, encrypted at rest",
        "base": short(one.base),
        "continues": short(one.parent) if one.parent else "nothing",
    }
    if verdict is None:
        return facts(rows)
    rows |= verdict_rows(verdict)
    slices = [[one.name, str(one.count), f"{one.before:.1f}", f"{one.after:.1f}"] for one in verdict.slices]
    return Lines(facts(rows), table("checked on", "items", "before", "after", rows=slices)) if slices else facts(rows)


def verdict_rows(verdict: Verdict) -> dict[str, str]:
    """Return the evidence of a verdict for a person."""
    return {
        "verdict": f"{verdict.decision}: {verdict.reason}",
        "gain": f"{verdict.gain:+.1f} points on {verdict.evidence} held-out requests, "
        f"95 % interval {verdict.lower:+.1f} to {verdict.upper:+.1f}",
        "fixed": str(len(verdict.fixed)),
        "broken": str(len(verdict.broken)),
        "took": f"{verdict.seconds:.1f} s",
    }
