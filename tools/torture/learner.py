"""kill -9 while learning: in training, in a checkpoint, in judging, in adopting.

Afterwards the store must be whole, what serves must be a complete adapter (the new one or the one before), and the
next process must go on at most one checkpoint before where the killed one was. The processes are forked from one that
has the model loaded; everything else is the product's own path on a real encrypted store. A process that ends before
its run does without being killed, or hangs, is a failure, too.

Costs are not measured here, so processes that come to the same step may write the same bytes: a journal must stand
that, too. When a kill comes is chance; `tests/learner/test_journal_kills.py` goes through all moments.
"""

import os
import random
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from feedback.engine import Engine
from feedback.models import ModelFile, check_adapter, check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.cycle import learn
from learner.gate import GatePolicy
from learner.journal import Checkpoint, Journal
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from store.paths import Home
from store.records import Adapter, Correction, Interaction, Message, Verdict
from store.store import Store
from tools.torture.common import Outcome, in_child, new_home, reopen

STAGES = ("train", "checkpoint", "judge", "adopt")
POLICY = LearnPolicy(
    recipe=Recipe(batch=4, min_steps=4, max_steps=4, lr=5e-3),
    gate=GatePolicy(min_evidence=2, target_evidence=2, groups=1, resamples=200, max_fall=100.0, confidence=0.5),
    restraints=(1.0,), held_size=8, slice_size=4, replay_size=8,
)  # fmt: skip
FRESH = 6  # corrections of one run: two are in one of the five folds, so every run has a challenger
RUNS = 12  # runs in one store
PATIENCE = 300.0  # seconds a child may take


@dataclass
class _Seen:
    """What a child said before it went."""

    stage: str = ""  # the last one it was in
    last: tuple[str, int] | None = None  # training and step it had done
    first: tuple[str, int] | None = None  # that it began with
    ended: bool = False
    code: int = 0  # of the process
    hung: bool = False
    buffer: bytes = field(default=b"", repr=False)


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Kill a learner `cycles` times."""
    outcome, draw = Outcome("learner"), random.Random(seed)
    torch.set_num_threads(1)
    model = check_model(embedded_model())
    base = load_base(model)
    home, runs, before = _begin(folder, model, 0), 0, _Seen()
    number = verdicts = 0
    while outcome.cycles < cycles:
        seen = _one(home, model, base, draw)
        outcome.cycles += not seen.ended
        if not seen.ended and (seen.hung or seen.code != -signal.SIGKILL):
            how = "hung" if seen.hung else f"ended by itself with {seen.code}"
            outcome.bad.append(f"cycle {outcome.cycles}: {how} in {seen.stage or 'start'}")
        outcome.add("runs ended" if seen.ended else f"killed in {seen.stage or 'start'}")
        lost = _lost(before, seen)
        outcome.add("steps done twice", max(0, lost))
        if lost > 1:
            outcome.bad.append(f"cycle {outcome.cycles}: {lost} steps lost")
        if seen.first or seen.ended:
            before = _Seen() if seen.ended else seen
        with reopen(home) as store:
            outcome.bad += [f"cycle {outcome.cycles}: {problem}" for problem in _problems(store, model)]
            if (decided := store.count(Verdict)) > verdicts:  # whatever was done for that verdict is not lost
                before = _Seen()
            verdicts = decided
            if seen.ended:
                runs += 1
                _teach(store, model, runs)
        if runs == RUNS:
            number, verdicts = number + 1, 0
            home, runs, before = _begin(folder, model, number), 0, _Seen()
    return outcome


def _one(home: Home, model: ModelFile, base: Base, draw: random.Random) -> _Seen:
    """Let one child learn, and kill it at a random moment or in a stage drawn at random."""
    child, descriptor = in_child(lambda out: _learn(home, model, base, out))
    seen, stage = _Seen(), draw.choice((*STAGES, "", ""))
    wait = draw.uniform(0.0, 0.004) if stage else draw.uniform(0.0, 3.0)
    end = time.monotonic() + (PATIENCE if stage else wait)
    skip = draw.randrange(3)
    while not seen.ended and (left := end - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        if not (part := os.read(descriptor, 4096)):
            break
        if _take(seen, part).stage == stage:
            skip -= 1
            if skip < 0 or stage == "adopt":
                time.sleep(wait)
                break
    seen.hung = bool(stage) and time.monotonic() >= end
    os.kill(child, signal.SIGKILL)
    while part := os.read(descriptor, 4096):
        _take(seen, part)
    os.close(descriptor)
    seen.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return seen


def _take(seen: _Seen, part: bytes) -> _Seen:
    """Read what the child says: a stage, or a step it has done."""
    *lines, seen.buffer = (seen.buffer + part).split(b"\n")
    for line in lines:
        name, *rest = line.decode().split("|")
        if name == "step":
            seen.last = (rest[0], int(rest[1]))
            seen.first = seen.first or seen.last
            seen.stage = "train"
        elif name == "end":
            seen.ended = True
        else:
            seen.stage = name
    return seen


def _lost(before: _Seen, now: _Seen) -> int:
    """Steps that were done and had to be done again."""
    if before.last is None or now.first is None:
        return 0
    order = ["challenger", "challenger, settling", "final", "final, settling"]
    recipe = POLICY.recipe
    begins = dict(zip(order, accumulate([0, *(recipe.min_steps, recipe.settled.min_steps) * 2]), strict=False))
    done, begun = (begins[phase] + step for phase, step in (before.last, now.first))
    return done - begun + 1


@dataclass
class _Writing:
    """In the place of the lock on writes: says that a write begins, and what comes after it."""

    out: int
    saving: bool = False

    def __enter__(self) -> None:
        os.write(self.out, b"checkpoint|\n" if self.saving else b"adopt|\n")

    def __exit__(self, *_: object) -> None:
        if self.saving:
            os.write(self.out, b"judge|\n")


class _Loud(Journal):
    """A journal that says when it is written."""

    def save(self) -> None:
        assert isinstance(self.quiet, _Writing)
        self.quiet.saving = True
        super().save()
        self.quiet.saving = False


def _learn(home: Home, model: ModelFile, base: Base, out: int) -> None:
    """The child: one run, from the journal where there is one.

    The lock on progress bars that loading the model made is shared by all that are forked from here: one that was
    killed while it held it, as PEFT does at the end of a training, would leave every later one waiting for good.
    """
    tqdm.set_lock(threading.RLock())

    def progress(phase: str, step: int, *_: float) -> None:
        os.write(out, f"step|{phase}|{step}\n".encode())

    with reopen(home) as store, Engine(model, context=256) as engine:
        journal = _Loud(Checkpoint(store, home), every=0.0, quiet=_Writing(out))
        learn(store, engine, base, probe_pairs(model.path)[:40], POLICY, progress=progress, journal=journal)
    os.write(out, b"end|\n")


def _begin(folder: Path, model: ModelFile, number: int) -> Home:
    """A new store with the first corrections."""
    home = new_home(folder / f"learner-{number}")
    with reopen(home) as store:
        _teach(store, model, 0)
    return home


def _teach(store: Store, model: ModelFile, run: int) -> None:
    """The corrections of one run: a house word in some rooms."""
    for place in range(FRESH):
        asked = Interaction(
            messages=(Message("user", f"film night {run} in room {place}"),), answer="music.stop()",
            model=model.digest, time=1000.0 * run + place,
        )  # fmt: skip
        wanted = f'light.dim(room="room {place}", level={10 + run})'
        store.add_all([asked, Correction(interaction=asked.id, corrected=wanted, time=asked.time)])


def _problems(store: Store, model: ModelFile) -> Iterator[str]:
    """What is not whole."""
    report = store.verify()
    yield from (problem.code for problem in report.problems)
    if store.damage:
        yield "damage"
    serving = store.active("personal")
    if serving is None:
        return
    if store.last(Adapter, digest=serving) is None or store.last(Verdict, adapter=serving, decision="adopt") is None:
        yield "serves without its record"
    check_adapter(store.artefact(serving), model.architecture)
