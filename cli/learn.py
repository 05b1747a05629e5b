"""`corrigible learn`: one learning run, now, in a child process. The background is `corrigible learner`'s."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cli.adapter import verdict_rows
from cli.base import Command
from cli.output import Report, facts, short
from cli.session import Session
from store.base import StoreBase
from store.errors import NotEligible
from store.records import Adapter, Verdict

if TYPE_CHECKING:
    from feedback.models import ModelFile
    from store.keys import Keys

Progress = Callable[[str, int, int, float], None]


@click.command(
    cls=Command,
    examples=["corrigible learn", "corrigible learn --json"],
    exits=[1, 10, 11, 12, 13, 15, 130],
)
@click.pass_obj
def learn(session: Session) -> Report:
    """Learn from the corrections once, now.

    Training runs in a process of its own with low priority; an adapter is adopted only on evidence. Killing it
    at any moment leaves the store and the served adapter whole, and the next run goes on where it was. Exit
    code 15 means: too little evidence yet. `corrigible learner run` learns in the background.
    """
    with session.unlocked() as (store, keys):
        verdict = once(session, store, keys, session.model())
        if verdict.decision == "wait":
            hint = "Correct more answers, then learn again; nothing is lost meanwhile."
            raise NotEligible(f"Not yet: {verdict.reason}.", hint=hint, code="too_little_evidence")
        return outcome(store, verdict)


def once(session: Session, store: StoreBase, keys: "Keys", model: "ModelFile") -> Verdict:
    """Run one learning run in a child process, with a bar where a person watches."""
    from learner.worker import run_in_child

    store.require_whole()
    with bar(not session.as_json and sys.stderr.isatty()) as progress:
        return run_in_child(session.home, keys, model.path, session.learn_policy(), progress=progress)


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
    if verdict.decision == "reject" and "probe" in verdict.reason:
        rows["hint"] = "With `protect_base = false` under [learner] your corrections overrule the model's own skills."
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
