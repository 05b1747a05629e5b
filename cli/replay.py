"""`corrigible replay`: the whole loop on a recorded log, with and without learning, and a report."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Command
from cli.output import PARTLY, Report, say
from cli.session import Session
from store.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.report.replay_tables import ReplayMeta
    from feedback.models import ModelFile
    from learner.replay import ReplaySpec
    from learner.replay_log import Event, Log, Pair
    from learner.replay_metrics import UserReplay
    from learner.spread import Tell


@click.command(
    cls=Command,
    examples=[
        "corrigible replay log.jsonl --report report",
        "corrigible replay log.jsonl --base base.gguf --learn-every 50 --users 3 --limit 500",
        "corrigible replay log.jsonl --base base.gguf --regression old.jsonl --json",
    ],
    exits=[1, 3, 13],
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--base", type=click.Path(path_type=Path), help="The GGUF to start from (default: your model).")
@click.option("--learn-every", type=click.IntRange(1), default=50, show_default=True, help="Corrections between runs.")
@click.option("--no-learn", is_flag=True, help="Only the base's answers.")
@click.option("--users", help="Only the first N users, or these, separated by commas.")
@click.option("--limit", type=click.IntRange(1), help="Only each user's first EVENTS.", metavar="EVENTS")
@click.option("--regression", type=click.Path(path_type=Path), help='JSONL of {"prompt","answer"} not to be forgotten.')
@click.option("--retrieve", type=click.IntRange(0), default=0, help="Also answer with N past answers in the prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--keep-going", is_flag=True, help="Leave bad lines out instead of stopping; ends with exit code 3.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write a page with pictures here.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the users' stores here, keys beside."
)
@click.pass_obj
def replay(
    session: Session,
    file: Path,
    base: Path | None,
    learn_every: int,
    no_learn: bool,
    users: str | None,
    limit: int | None,
    regression: Path | None,
    retrieve: int,
    seed: int,
    jobs: int,
    keep_going: bool,
    report: Path | None,
    keep: Path | None,
) -> Report:
    """Run the loop on somebody's log and measure what it brings.

    FILE holds one request a line, in time order for each user: {"user", "time" in seconds, "prompt",
    "answer"}; with "kind": "reject" and no answer it is a thumbs-down. Each user gets an own encrypted store.
    The model answers; a wrong answer is corrected by the log, a right one approved; learning runs through the
    gate. The base's own answers are measured alongside.
    """
    from learner.replay_log import read_log, read_pairs

    log = read_log(file, keep_going=keep_going)
    chosen = choose(log, users, limit)
    pairs = read_pairs(regression) if regression else ()
    model = session.model(base)

    from learner.replay import ReplaySpec
    from learner.replay_pool import Job, replay_users

    spec = ReplaySpec(learn_every=learn_every, learning=not no_learn, seed=seed, retrieve=retrieve)
    began = time.monotonic()
    with _folder(keep) as folder, _progress(session, chosen) as progress:
        job = Job(model, spec, pairs, folder, keep is not None)
        found = replay_users(job, chosen, progress, processes=min(jobs, len(chosen)))
    meta = _meta(file, model, spec, regression, pairs, log, time.monotonic() - began)
    return _report(found, meta, report)


def choose(log: "Log", users: str | None, limit: int | None) -> "dict[str, tuple[Event, ...]]":
    """Return the events of the users asked for, each cut to `limit`.

    Raises:
        UsageError: a name that is not in the log (``unknown_user``).
    """
    names = list(log.users)
    if users is not None:
        names = names[: int(users)] if users.isdecimal() else [name.strip() for name in users.split(",")]
    for name in names:
        if name not in log.users:
            raise UsageError(f"There is no user {name!r} in the log.", code="unknown_user")
    if not names:
        raise UsageError("No user was chosen.", code="unknown_user")
    return {name: log.users[name][:limit] for name in names}


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give the folder for the users' stores: `keep`, or one that goes away at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="corrigible-replay-") as name:
            yield Path(name)
    elif keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep.name} is not empty.", hint="Name a new folder.", code="not_empty")
    else:
        yield keep


@contextmanager
def _progress(session: Session, users: "Mapping[str, tuple[Event, ...]]") -> "Iterator[Tell]":
    """Give a callback that moves a bar on stderr, one step an event; silent where nobody watches."""
    import sys

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=session.as_json or not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(map(len, users.values())))

        def step(user: str, what: str) -> None:
            doing = "learning" if what == "learn" else "answering"
            bar.update(task, advance=what == "answer", description=f"{user}: {doing}")

        yield step


def _meta(
    file: Path,
    model: "ModelFile",
    spec: "ReplaySpec",
    regression: Path | None,
    pairs: "tuple[Pair, ...]",
    log: "Log",
    seconds: float,
) -> "ReplayMeta":
    from cli.report.replay_tables import ReplayMeta

    return ReplayMeta(
        log=file.name,
        base=model.path.name,
        model=model.digest,
        learn_every=spec.learn_every,
        learning=spec.learning,
        seed=spec.seed,
        regression=regression.name if regression else "",
        regression_size=len(pairs),
        faults=len(log.faults),
        seconds=round(seconds, 1),
        retrieve=spec.retrieve,
    )


def _report(found: "list[UserReplay]", meta: "ReplayMeta", folder: Path | None) -> Report:
    """Write the page when asked and return what the command says."""
    from cli.report.replay_tables import replay_data

    data = replay_data(found, meta)
    if folder is not None:
        from cli.report.page import write
        from cli.report.replay_page import replay_page

        page = write(folder, {"index.html": replay_page(found, meta), "replay.json": json.dumps(data, indent=1) + "\n"})
        say(f"The report is in {page}.")
    if meta.faults:
        say(f"{meta.faults} lines could not be used and were left out.")
    return Report(data, lambda: _words(found, meta), PARTLY if meta.faults else 0)


def _words(found: "list[UserReplay]", meta: "ReplayMeta") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from cli.output import table
    from cli.report.replay_tables import duration, tables_of

    shown = [table(*one.head, rows=one.rows, title=one.caption) for one in tables_of(found, meta)]
    return Group(*shown, Text(f"{duration(meta.seconds)} in all."))
