"""The demo from beginning to end, stage by stage, each timed; all of it in one folder that goes away."""

import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.demo.audit import all_said, read_ledger, scan
from cli.demo.fleet import EPSILON, ROUNDS, FleetRun, Member, join, run_rounds
from cli.demo.life import FIRST_DAYS, TALK, Delivery, Seat, Shift, arrive, live, receive
from cli.demo.owners import NEWCOMER, OWNERS, Owner
from cli.demo.result import Arrival, DemoResult, Ledger, Life, Reception
from cli.output import say
from federation.deploy import Progress as RoundProgress
from feedback.models import ModelFile, check_model, embedded_model
from learner.spread import Tell, spread
from store.keys import Keys
from store.paths import Home
from store.store import Store

PLANTED = "Dov"  # the owner whose gate is shown the bad adapter
LEARNING = TALK / 2  # steps of the bar that a learning run counts

Move = Callable[[float], None]
N = TypeVar("N", Life, Reception, Arrival)


@dataclass
class Stages:
    """Names, times and shows the stages."""

    bar: Progress
    quiet: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, words: str, total: float) -> Iterator[Move]:
        """Show one stage of `total` steps; gives a function that moves it on."""
        task: TaskID = self.bar.add_task(words, total=total)
        began = time.monotonic()
        yield lambda steps: self.bar.update(task, advance=steps)
        self.seconds[words] = round(time.monotonic() - began, 1)
        self.bar.update(task, completed=total)
        if self.bar.disable and not self.quiet:
            say(f"{words}: {self.seconds[words]:.0f} s")


def run_demo(*, seed: int, jobs: int, quiet: bool) -> DemoResult:
    """Run every stage and return what was measured.

    Args:
        seed: of the owners' requests, the training and the gate; noise is always fresh.
        jobs: processes for the owners.
        quiet: no progress at all.
    """
    console = Console(file=sys.stderr, quiet=quiet)
    columns = (TextColumn("{task.description:<58}"), BarColumn(), TimeElapsedColumn())
    model = check_model(embedded_model())
    bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    with tempfile.TemporaryDirectory(prefix="corrigible-demo-") as name, bar:
        return _run(Path(name), model, seed, jobs, Stages(bar, quiet))


def _run(root: Path, model: ModelFile, seed: int, jobs: int, stages: Stages) -> DemoResult:
    """All stages in order."""
    seats = [_seat(root, owner) for owner in OWNERS]
    shifts = [Shift(model, seed, tuple(seats[number::jobs])) for number in range(jobs)]
    with stages.stage("Eight owners talk, correct and learn", len(seats) * (TALK + LEARNING)) as move:
        lives = _by_name(spread(live, shifts, _mover(move, asked=1, done=LEARNING)))
    with stages.stage(f"{ROUNDS} federated rounds over real Flower processes", ROUNDS) as move:
        fleet_key, members = join(root / "server", seats, model)
        run = run_rounds(root / "server", members, model, _rounds(move))
    with stages.stage("Every device verifies and judges the shared adapter", len(seats)) as move:
        deliveries = [_delivery(shift, members, run, lives) for shift in shifts]
        received = _by_name(spread(receive, deliveries, _mover(move, done=1)))
    newcomer = _seat(root, NEWCOMER)
    with stages.stage("A ninth device that never took part", FIRST_DAYS + 1) as move:
        shift = Shift(model, seed, (newcomer,))
        (arrival,) = spread(
            arrive, [Delivery(shift, fleet_key, run.envelope, run.adapter)], _mover(move, asked=1, done=1)
        )
    with stages.stage("Search of everything on disk for what was said", 2) as move:
        ledgers = tuple(_ledger(member) for member in members)
        move(1)
        found = scan(root, all_said([*(life.said for life in lives.values()), arrival.said]))
    names = [owner.name for owner in OWNERS]
    return DemoResult(
        model=model.name,
        lives=tuple(lives[name] for name in names),
        rounds=run.rounds,
        release=run.release,
        epsilon=run.epsilon,
        delta=run.delta,
        unit=run.unit,
        cap=EPSILON,
        update_size=run.update_size,
        received=tuple(received[name] for name in names),
        newcomer=arrival,
        ledgers=ledgers,
        scan=found,
        seconds=stages.seconds,
    )


def _seat(root: Path, owner: Owner) -> Seat:
    """A place for an owner, with a passphrase that nobody else will ever know."""
    home = Home.at(root / "owners" / owner.name.lower())
    return Seat(owner, home, secrets.token_hex(32), planted=owner.name == PLANTED)


def _delivery(shift: Shift, members: Sequence[Member], run: FleetRun, lives: Mapping[str, Life]) -> Delivery:
    """The release for the devices of a shift."""
    keys = {member.seat.owner.name: member.key for member in members}
    names = [seat.owner.name for seat in shift.seats]
    own, exams = tuple(keys[name] for name in names), tuple(lives[name].personal for name in names)
    return Delivery(shift, run.fleet_key, run.envelope, run.adapter, own, exams)


def _ledger(member: Member) -> Ledger:
    """Open a member's store once more and read what left it."""
    with Store.open(member.seat.home, Keys.from_bytes(member.key)) as store:
        return read_ledger(member.seat.owner.name, store)


def _mover(move: Move, **steps: float) -> Tell:
    """Turn what workers tell into steps of a bar."""
    return lambda _who, what: move(steps.get(what, 0.0))


def _rounds(move: Move) -> RoundProgress:
    """Turn the fleet's progress (phase, rounds done, rounds) into steps of a bar."""
    shown = 0

    def step(_phase: str, done: int, _total: int) -> None:
        nonlocal shown
        move(done - shown)
        shown = done

    return step


def _by_name(found: Sequence[N]) -> dict[str, N]:
    """Results of several processes under their owners' names."""
    return {one.name: one for one in found}
