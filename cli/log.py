"""`corrigible log`: what was said, what was corrected; taking it out, bringing it in, removing it for good."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Group
from cli.output import PARTLY, Report, facts, one_line, short, table, when
from cli.protection import SECRET_FILE, Asked
from cli.session import Session, confirm, read_passphrase
from store.base import StoreBase
from store.errors import CorrigibleError, UsageError
from store.records import Adapter, Correction, Interaction, Rating

if TYPE_CHECKING:
    from store.exchange import Shape

EXITS = (10, 11, 12, 13)


@click.group(cls=Group, examples=["corrigible log list", "corrigible log search kitchen"])
def log() -> None:
    """List, search, show, export and remove what was logged."""


@log.command("list", examples=["corrigible log list", "corrigible log list --limit 5 --json"], exits=EXITS)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many.")
@click.pass_obj
def list_(session: Session, limit: int) -> Report:
    """List the newest answers and what became of them."""
    with session.store() as store:
        return _listing(store, store.all(Interaction, limit=limit))


@log.command(examples=["corrigible log search kitchen"], exits=EXITS)
@click.argument("text")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@click.pass_obj
def search(session: Session, text: str, limit: int) -> Report:
    """Find the answers whose request, answer or correction holds TEXT."""
    with session.store() as store:
        return _listing(store, store.search(text, limit))


@log.command(examples=["corrigible log show 9f86d081"], exits=EXITS)
@click.argument("id_", metavar="ID")
@click.pass_obj
def show(session: Session, id_: str) -> Report:
    """Show one answer in full, with its correction and ratings."""
    with session.store() as store:
        interaction = store.get(Interaction, id_)
        view = _view(interaction, *_hanging(store, [interaction])[interaction.id])
    conversation = [{"role": message.role, "content": message.content} for message in interaction.messages]
    data = {**view, "messages": conversation, "model": interaction.model, "stack": list(interaction.stack)}
    rows: dict[str, str] = {message.role: message.content for message in interaction.messages}
    rows |= {"answer": interaction.answer, "corrected": view["corrected"] or "", "time": when(interaction.time)}
    rows |= {"adapters": ", ".join(map(short, interaction.stack)) or "none", "id": interaction.id}
    return Report(data, lambda: facts({name: text for name, text in rows.items() if text}))


@log.command(
    examples=["corrigible log rm 9f86d081", "corrigible log rm 9f86d081 2c26b46b --yes"], exits=[PARTLY, *EXITS, 130]
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(session: Session, ids: tuple[str, ...], yes: bool) -> Report:
    """Remove answers with everything that hangs on them, text and all.

    An adapter that has learned from a removed correction keeps what it learned and is named here;
    `corrigible forget` removes that, too.
    """
    failed: list[dict[str, str]] = []
    with session.store() as store:
        found: list[Interaction] = []
        for one in ids:
            try:
                found.append(store.get(Interaction, one))
            except CorrigibleError as error:
                if len(ids) == 1:
                    raise
                failed.append({"id": one, "code": error.code, "message": error.message})
        hanging = _hanging(store, found)
        count = sum(len(corrections) + len(ratings) for corrections, ratings in hanging.values())
        confirm(session, f"This removes for good: answers {len(found)}, corrections and ratings {count}.", yes)
        learned = _learned_from(store, found)
        removed = store.remove_all([interaction.id for interaction in found])
    data = {"removed": removed, "failed": failed, "adapters_that_learned_from_them": learned}
    return Report(data, lambda: _rm_words(removed, failed, learned), PARTLY if failed else 0)


@log.command(
    examples=[
        "corrigible log export mine.corrigible",
        "corrigible log export pairs.jsonl --shape preferences --plaintext",
    ],
    exits=[1, *EXITS],
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--shape",
    type=click.Choice(["records", "sft", "preferences"]),
    default="records",
    show_default=True,
    help="Everything, or pairs for training.",
)
@click.option("--plaintext", is_flag=True, help="Write it readable for anybody; else sealed under this store's key.")
@click.option(
    "--export-passphrase-file", type=SECRET_FILE, help="Seal it for this passphrase, to open it on another device."
)
@click.option("--yes", is_flag=True, help="Replace FILE without being asked.")
@click.pass_obj
def export(
    session: Session, file: Path, shape: "Shape", plaintext: bool, export_passphrase_file: Path | None, yes: bool
) -> Report:
    """Write what was logged to FILE, encrypted unless you say otherwise."""
    from store.exchange import export_plain, export_sealed
    from store.protectors import Argon2Cost, Passphrase

    if plaintext and export_passphrase_file:
        raise UsageError("Give either --plaintext or --export-passphrase-file.")
    if file.exists():
        confirm(session, f"This replaces {file.name}.", yes)
    phrase = read_passphrase(export_passphrase_file) if export_passphrase_file else None
    with session.unlocked() as (store, keys):
        if plaintext:
            export_plain(store, file, shape)
        else:
            export_sealed(store, file, shape, Passphrase(phrase, Argon2Cost.here()) if phrase else keys)
    size = file.stat().st_size
    data = {"file": str(file), "shape": shape, "sealed": not plaintext, "bytes": size}
    return Report(data, lambda: f"Wrote {size} bytes, {'readable for anybody' if plaintext else 'sealed'}: {file}")


@log.command(
    "import",
    examples=["corrigible log import mine.corrigible", "corrigible log import logs.db"],
    exits=[1, PARTLY, *EXITS],
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--export-passphrase-file", type=SECRET_FILE, help="Read the passphrase of the export from this file.")
@click.pass_obj
def import_(session: Session, file: Path, export_passphrase_file: Path | None) -> Report:
    """Bring in FILE: an export of ours, Open WebUI's feedback export, or the llm tool's logs.db.

    Importing twice adds nothing. Lines that cannot be used are named by number and left out (exit code 3).
    """
    from store.exchange import import_file

    with session.unlocked() as (store, keys):
        done = import_file(store, file, keys=keys, passphrase=Asked(session, export_passphrase_file))
    skipped = [{"entry": number, "reason": reason} for number, reason in done.skipped]
    data = {"format": done.format, "added": done.added, "known": done.known, "skipped": skipped}
    lines = [f"{done.format}: {done.added} records added, {done.known} known already."]
    lines += [f"Left out, entry {number}: {reason}" for number, reason in done.skipped]
    return Report(data, lambda: "\n".join(lines), PARTLY if skipped else 0)


def _listing(store: StoreBase, found: list[Interaction]) -> Report:
    """Report interactions, one a line."""
    hanging = _hanging(store, found)
    views = [_view(interaction, *hanging[interaction.id]) for interaction in found]
    rows = [
        [
            short(view["id"]),
            when(view["time"]),
            *(one_line(view[part], 40) for part in ("request", "answer")),
            one_line(view["corrected"] or view["mark"], 40),
        ]
        for view in views
    ]
    return Report(
        {"interactions": views, "count": len(views)},
        lambda: table("id", "time", "request", "answer", "became", rows=rows) if rows else "Nothing yet.",
    )


def _hanging(store: StoreBase, interactions: Iterable[Interaction]) -> dict[str, tuple[list[Correction], list[Rating]]]:
    """Return the corrections and ratings of each interaction, oldest first."""
    hanging: dict[str, tuple[list[Correction], list[Rating]]] = {one.id: ([], []) for one in interactions}
    for correction in store.all(Correction):
        if correction.interaction in hanging:
            hanging[correction.interaction][0].append(correction)
    for rating in store.all(Rating):
        if rating.interaction in hanging:
            hanging[rating.interaction][1].append(rating)
    return hanging


def _view(interaction: Interaction, corrections: list[Correction], ratings: list[Rating]) -> dict[str, Any]:
    """Return one interaction as JSON values: the newest correction and rating count."""
    mark = {1: "approved", -1: "rejected"}[ratings[-1].value] if ratings else ""
    return {
        "id": interaction.id,
        "time": interaction.time,
        "request": interaction.messages[-1].content,
        "answer": interaction.answer,
        "corrected": corrections[-1].corrected if corrections else None,
        "mark": "corrected" if corrections else mark,
    }


def _learned_from(store: StoreBase, interactions: list[Interaction]) -> list[str]:
    """Return the digests of adapters that learned from any of `interactions`."""
    gone = {interaction.messages for interaction in interactions}
    examples = {example.id for example in store.examples() if example.messages in gone}
    return [adapter.digest for adapter in store.all(Adapter) if examples & set(adapter.examples)]


def _rm_words(removed: list[str], failed: list[dict[str, str]], learned: list[str]) -> str:
    """Say what went, what did not, and which adapters still know it."""
    lines = [f"Removed {len(removed)} records."]
    lines += [f"Not removed: {one['id']}: {one['message']}" for one in failed]
    lines += [f"Adapter {short(digest)} has learned from them." for digest in learned]
    return "\n".join(lines)
