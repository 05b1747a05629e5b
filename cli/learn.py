"""`corrigible learn`: one learning run in a child process, or the background loop, watched from here."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cli.adapter import verdict_rows
from cli.background import holder
from cli.base import Command
from cli.output import Report, emit, facts, say, short
from cli.session import Session
from store.base import StoreBase
from store.errors import CorrigibleError, DaemonUnreachable, NotEligible, UsageError
from store.records import Adapter, Verdict

if TYPE_CHECKING:
    from feedback.models import ModelFile
    from store.keys import Keys

LOCK = "daemon"
PATIENCE = 30.0  # seconds that a loop asked to stop may take

Progress = Callable[[str, int, int, float], None]


@click.command(
    cls=Command,
    examples=["corrigible learn", "corrigible learn --watch --json", "corrigible learn --stop"],
    exits=[1, 10, 11, 12, 13, 15, 16, 130],
)
@click.option("--watch", is_flag=True, help="Stay and learn whenever enough new corrections have come.")
@click.option("--stop", is_flag=True, help="End the loop that `--watch` runs elsewhere.")
@click.pass_obj
def learn(session: Session, watch: bool, stop: bool) -> Report:
    """Learn from the corrections, once or in the background.

    Training runs in a process of its own with low priority; an adapter is adopted only on evidence. Killing it
    at any moment leaves the store and the served adapter whole. Exit code 15 means: too little evidence yet.
    """
    if watch and stop:
        raise UsageError("Give either --watch or --stop.")
    if stop:
        return _stop(session)
    with session.unlocked() as (store, keys):
        if watch:
            return _watch(session, store, keys)
        verdict = once(session, store, keys, session.model())
        if verdict.decision == "wait":
            hint = "Correct more answers, then learn again; nothing is lost meanwhile."
            raise NotEligible(f"Not yet: {verdict.reason}.", hint=hint, code="too_little_evidence")
        return outcome(store, verdict)


def once(session: Session, store: StoreBase, keys: "Keys", model: "ModelFile") -> Verdict:
    """Run one learning run in a child process, with a bar where a person watches."""
    from learner.policy import LearnPolicy
    from learner.worker import run_in_child

    store.require_whole()
    with bar(not session.as_json and sys.stderr.isatty()) as progress:
        return run_in_child(session.home, keys, model.path, LearnPolicy(), progress=progress)


def outcome(store: StoreBase, verdict: Verdict) -> Report:
    """Report a verdict: what was decided, on what evidence, and what it fixed."""
    record = store.last(Adapter, digest=verdict.adapter) if verdict.adapter else None
    data = {
        "verdict": verdict.id,
        "decision": verdict.decision,
        "reason": verdict.reason,
        "adapter": verdict.adapter or None,
        "examples": len(record.examples) if record else 0,
        "gain": verdict.gain,
        "interval": [verdict.lower, verdict.upper],
        "evidence": verdict.evidence,
        "slices": {one.name: {"count": one.count, "before": one.before, "after": one.after} for one in verdict.slices},
        "fixed": len(verdict.fixed),
        "broken": len(verdict.broken),
        "seconds": verdict.seconds,
    }
    rows = {"adapter": short(verdict.adapter), **verdict_rows(verdict)} if verdict.adapter else verdict_rows(verdict)
    return Report(data, lambda: facts(rows))


@contextmanager
def bar(shown: bool) -> Iterator[Progress]:
    """Yield what a learning run reports to: a progress bar on stderr, or nothing."""
    if not shown:
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[loss]}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as shown_bar:
        tasks: dict[str, Any] = {}

        def report(phase: str, step: int, steps: int, loss: float) -> None:
            if phase not in tasks:
                tasks[phase] = shown_bar.add_task(phase, total=steps, loss="")
            shown_bar.update(tasks[phase], completed=step, total=steps, loss=f"loss {loss:.3f}")

        yield report


def _watch(session: Session, store: StoreBase, keys: "Keys") -> Report:
    """Run the loop here until Ctrl-C (exit 130) or `learn --stop` (exit 0)."""
    asked = threading.Event()

    def on_term(_number: int, _frame: object) -> None:
        asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        with store.lock(LOCK):
            _loop(session, store, keys, asked)
    except KeyboardInterrupt:
        if not asked.is_set():
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return Report({"event": "stopped"}, lambda: "Stopped.")


def _loop(session: Session, store: StoreBase, keys: "Keys", asked: threading.Event) -> None:
    """Learn whenever it is due, reporting each run as it ends."""
    from learner.loop import Pace, watch
    from learner.policy import LearnPolicy

    settings = session.config.learn
    pace = Pace(corrections=settings.every, look_every=settings.poll)

    def tell(news: Verdict | CorrigibleError) -> None:
        if isinstance(news, Verdict):
            report = outcome(store, news)
            emit(Report({"event": "learned", **report.data}, report.words), session.as_json)
        else:
            emit(Report({"event": "waiting", "code": news.code, "reason": news.message}, lambda: ""), session.as_json)

    if not session.as_json:
        say(f"Learning after every {pace.corrections} new corrections. Ctrl-C ends it.")
    model, retention = session.model().path, session.config.retention.policy()
    watch(store, session.home, keys, model, LearnPolicy(), pace, stop=asked, tell=tell, retention=retention)


def _stop(session: Session) -> Report:
    """Ask the loop to end and wait until it has."""
    from store.keys import key_status

    key_status(session.home)  # no store, no loop
    lock = session.home.lock(f"job-{LOCK}")
    process = holder(lock)
    if process is None:
        raise DaemonUnreachable("No background loop is running.", hint="`corrigible learn --watch` starts one.")
    os.kill(process, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while holder(lock) == process:
        if time.monotonic() > end:
            raise DaemonUnreachable("The background loop does not stop.", hint=f"End process {process} yourself.")
        time.sleep(0.05)
    return Report({"stopped": process}, lambda: f"Stopped process {process}.")
