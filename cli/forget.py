"""`corrigible forget`: what was said goes, what learned from it goes, and a signed receipt says so."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Command
from cli.learn import bar
from cli.output import Report, facts, say, short
from cli.session import Session, confirm
from federation.claim import claim
from store.base import StoreBase
from store.errors import IntegrityError, UsageError
from store.records import Interaction

if TYPE_CHECKING:
    from learner.exposure import Exposure
    from learner.forget import Forgotten
    from store.keys import Keys

MOST = 10_000  # matches of one search


@click.command(
    cls=Command,
    examples=[
        "corrigible forget 9f86d081",
        'corrigible forget --match "my old address" --receipt forgotten.json',
        "corrigible forget --check forgotten.json",
    ],
    exits=[1, 10, 11, 12, 13, 130],
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--match", help="Everything said that holds these words.", metavar="WORDS")
@click.option("--no-measure", is_flag=True, help="Do not train a twin to measure what is left; half the time.")
@click.option("--receipt", type=click.Path(dir_okay=False, path_type=Path), help="Write the signed receipt here, too.")
@click.option("--check", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Check a signed receipt.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def forget(
    session: Session,
    ids: tuple[str, ...],
    match: str | None,
    no_measure: bool,
    receipt: Path | None,
    check: Path | None,
    yes: bool,
) -> Report:
    """Forget answers with their corrections, and everything that learned from them.

    The words are destroyed, adapters that learned from them are destroyed, and the rest is learned again from the
    newest adapter that never saw them. What left in a private update cannot be recalled: the receipt says so, with
    the epsilon that bounds it.
    """
    if check is not None:
        return _check(check)
    if not ids and match is None:
        raise UsageError("Say what to forget: an ID, or --match WORDS.", hint="`corrigible log search` finds it.")
    with session.unlocked() as (store, keys), store.lock("learn"):
        wanted = _wanted(store, ids, match)
        if not wanted:
            raise UsageError("Nothing that was said matches.", code="not_found")
        return _forget(session, store, keys, wanted, not no_measure, receipt, yes)


def _wanted(store: StoreBase, ids: tuple[str, ...], match: str | None) -> list[str]:
    """Ids of the interactions meant."""
    found = [store.get(Interaction, one).id for one in ids]
    if match is not None:
        found += [one.id for one in store.search(match, MOST)]
    return list(dict.fromkeys(found))


def _forget(
    session: Session, store: StoreBase, keys: "Keys", ids: list[str], measure: bool, file: Path | None, yes: bool
) -> Report:
    """Ask, forget, sign."""
    from feedback.engine import Engine
    from feedback.models import probe_pairs
    from learner.erasure import signed
    from learner.forget import Tools, forget, plan
    from learner.journal import Checkpoint

    found = plan(store, ids)
    confirm(session, f"This destroys for good: answers {len(ids)}, adapters {len(found.exposed)}.", yes)
    model = session.model()
    with (
        Engine(model, threads=session.config.model.threads) as engine,
        bar(not session.as_json and session.interactive) as progress,
    ):
        Checkpoint(store, session.home).drop()
        tools = Tools(engine, None, probe_pairs(model.path), session.learn_policy(), progress)
        done = forget(store, found, tools, measure=measure)
    erasure = signed(done, keys)
    store.add(erasure)
    papers = {"body": erasure.body, "signature": erasure.signature, "key": erasure.key}
    if file is not None:
        file.write_text(json.dumps(papers, indent=1) + "\n", encoding="utf-8")
        say(f"The receipt is in {file}.")
    data = {**json.loads(erasure.body), "receipt": papers}
    return Report(data, lambda: facts(_words(done)))


def _check(file: Path) -> Report:
    """Check a receipt."""
    from learner.erasure import genuine

    try:
        papers = json.loads(file.read_text(encoding="utf-8"))
        whole = genuine(papers["body"], papers["signature"], papers["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("This is not a receipt.", code="not_a_receipt") from error
    if not whole:
        raise IntegrityError("The receipt was changed, or signed by another key.", code="bad_signature")
    data = {"genuine": True, "key": papers["key"], **json.loads(papers["body"])}
    return Report(data, lambda: f"Genuine, signed by the key {papers['key'][:16]}…")


def _words(done: "Forgotten") -> dict[str, str]:
    """What a person reads."""
    rebuilt = done.rebuilt
    rows = {
        "destroyed": f"{done.removed} records, {len(done.destroyed)} adapters",
        "went back to": short(done.start) if done.start else "the base model",
        "learned again": f"{rebuilt.corrections} corrections in {rebuilt.steps} steps, {rebuilt.seconds:.0f} s"
        if rebuilt.adapter
        else "nothing",
    }
    if done.before is not None and done.after is not None:
        rows |= {"told before": _exposure(done.before), "told after": _exposure(done.after)}
    shared = done.shared
    rows["left the device"] = (
        f"{shared.runs} private updates that cannot be recalled; what they say of it is bounded by "
        f"{claim(shared.epsilon, shared.delta, shared.unit)}"
        if shared
        else "nothing of it ever did"
    )
    return rows


def _exposure(found: "Exposure") -> str:
    """An exposure in words."""
    return f"{found.mean:+.2f} nats per token above a twin that never saw it, {found.most:+.2f} at most"
