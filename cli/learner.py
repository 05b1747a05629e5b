"""`corrigible learner`: the background learner, watched from here, and its history."""

import os
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.background import holder
from cli.base import Group
from cli.learn import outcome
from cli.output import Report, emit, say, when
from cli.runtime import running
from cli.session import Session
from store.base import StoreBase
from store.errors import CorrigibleError, DaemonUnreachable, UsageError
from store.records import LiveVerdict, Verdict

if TYPE_CHECKING:
    from learner.conditions import Wait
    from store.keys import Keys

PATIENCE = 30.0  # seconds that a learner asked to stop may take
EXITS = (10, 11, 12, 13)


@click.group(cls=Group, examples=["corrigible learner run", "corrigible learner history", "corrigible learner stop"])
def learner() -> None:
    """Learn in the background; what was learned and what it cost."""


@learner.command(examples=["corrigible learner run", "corrigible learner run --json"], exits=[1, *EXITS, 130])
@click.pass_obj
def run(session: Session) -> Report:
    """Stay, and learn whenever there is something to learn and nobody is disturbed by it.

    The settings under [learner] say when: on mains, cool, idle, with memory to spare, so many minutes a day.
    `corrigible status` says what it waits for. Ctrl-C (exit 130) or `corrigible learner stop` (exit 0) ends it;
    a run that is cut off goes on the next time.
    """
    asked = threading.Event()

    def on_term(_number: int, _frame: object) -> None:
        asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        with session.unlocked() as (store, keys):
            _run(session, store, keys, asked)
    except KeyboardInterrupt:
        if not asked.is_set():
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return Report({"event": "stopped"}, lambda: "Stopped.")


@learner.command(examples=["corrigible learner stop"], exits=[10, 16])
@click.pass_obj
def stop(session: Session) -> Report:
    """End the background learner, wherever it runs, and wait until it has."""
    from store.keys import key_status

    key_status(session.home)  # no store, no learner
    lock = session.home.lock("job-daemon")
    process = holder(lock)
    if process is None:
        raise DaemonUnreachable("No background learner is running.", hint="`corrigible learner run` starts one.")
    gateway = running(session.home)
    if gateway is not None and gateway.process == process:
        raise UsageError("The learner runs inside `corrigible up`.", hint="`corrigible down` ends both.", code="in_up")
    os.kill(process, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while holder(lock) == process:
        if time.monotonic() > end:
            raise DaemonUnreachable("The background learner does not stop.", hint=f"End process {process} yourself.")
        time.sleep(0.05)
    return Report({"stopped": process}, lambda: f"Stopped process {process}.")


@learner.command(examples=["corrigible learner history", "corrigible learner history --svg curve.svg"], exits=EXITS)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many runs.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the curve as a picture here.")
@click.pass_obj
def history(session: Session, limit: int, svg: Path | None) -> Report:
    """Show every run with what it cost, fixed and broke, and whether you correct less than you used to."""
    from cli.report import learning
    from learner.history import history as read_history

    with session.store() as store:
        found = read_history(store)
    if svg is not None:
        svg.write_text(learning.standalone(learning.curve(found).chart), encoding="utf-8")
        say(f"The picture is in {svg}.")
    return Report(learning.data(found, limit), lambda: learning.words(found, limit))


def _run(session: Session, store: StoreBase, keys: "Keys", asked: threading.Event) -> None:
    """Learn whenever it is due, reporting what happens."""
    from cli.report import learning
    from learner import daemon
    from learner.policy import LearnPolicy

    def tell(news: "daemon.News") -> None:
        if isinstance(news, Verdict):
            report = outcome(store, news)
            emit(Report({"event": "learned", **report.data}, report.words), session.as_json)
        elif isinstance(news, LiveVerdict):
            emit(Report({"event": news.decision, **asdict(news)}, lambda: learning.live_words(news)), session.as_json)
        elif isinstance(news, CorrigibleError):
            data = {"event": "failed", "code": news.code, "reason": news.message}
            emit(Report(data, lambda: f"Failed: {news.message} {news.hint}"), session.as_json)
        else:
            emit(_waiting(news), session.as_json)

    manners = session.config.learner
    if not session.as_json:
        say(f"Learning after every {manners.every} new corrections, when it disturbs nobody. Ctrl-C ends it.")
    model, retention = session.model().path, session.config.retention.policy()
    duty = daemon.Duty(store, session.home, keys, model, LearnPolicy(), manners, retention=retention)
    daemon.run(duty, stop=asked, tell=tell)


def _waiting(wait: "Wait") -> Report:
    """Report why nothing happens."""
    data = {"event": "waiting", "code": wait.code, "reason": wait.reason, "next_look": wait.next_look}
    return Report(data, lambda: f"Waiting: {wait.reason}, next look {when(wait.next_look)}")
