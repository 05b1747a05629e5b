"""A process may die at any line while it keeps its journal, and so may the next: every such history is walked.

A kill -9 takes what a process had in mind and leaves what it had written. So what lies on the disk before a line of the
code that writes is what a kill there leaves behind. One run, looked at before each of these lines, shows all that one
kill can leave; runs begun from each of that, all that two in a row can; and so on, until nothing new is left behind.
`python -m tools.torture learner` kills real processes at random; this leaves nothing to chance.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from learner import journal as journal_module
from learner.journal import Checkpoint, Journal, Steps
from learner.lora import LoraWeights
from learner.usage import pointer
from store import artefacts, files
from store.files import PARTIAL, write_atomic
from store.sealed import MAGIC
from store.store import Store
from tests.learner.conftest import Owner

WATCHED = {module.__file__ for module in (journal_module, artefacts, files)}
STEPS = 2


@dataclass(frozen=True)
class Left:
    """What a process that died has left."""

    steps: int = 0  # that were kept, by its own word
    files: Mapping[Path, bytes] = field(default_factory=dict)
    lines: tuple[str, ...] = ()  # before which processes died

    @property
    def key(self) -> object:
        """The same for what no later process can tell apart: half-written files have no name that anybody knows."""
        named = {path: data for path, data in self.files.items() if not path.name.startswith(PARTIAL)}
        seen = {path: data if path.suffix else data.startswith(MAGIC) for path, data in named.items()}
        return self.steps, frozenset(seen.items())


@dataclass
class Process:
    """A learner whose training is so small that its writing is all there is to it."""

    store: Store
    kind: type[Checkpoint]
    kept: int = 0  # steps
    begun: int = 0  # steps that were there when it had taken up the run
    counted: int = 0  # steps that it and those before it took
    weights: LoraWeights | None = None

    def run(self) -> None:
        """Take the run up or begin it, and bring it to its end."""
        journal = Journal(self.kind(self.store, self.store.home), every=0.0)
        journal.open("one", ["a"], frozenset("a"))
        self.begun = journal.usage.steps
        self.weights = journal.trained("final", self.train)
        journal.noted("evidence", lambda: 1.0)
        self.counted = journal.usage.steps
        self.kept = 0  # there is a verdict: nobody needs the journal any more
        journal.close()

    def train(self, steps: Steps) -> LoraWeights:
        """Two steps with an optimiser that remembers."""
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        optimizer = torch.optim.Adam([weight], lr=0.1)
        for step in range(steps.resume([weight], optimizer), STEPS):
            weight.grad = torch.eye(2) + step
            optimizer.step()
            steps.done(step + 1, 1, [weight], optimizer)
            self.kept = steps.journal.usage.steps
        matrix = weight.detach().numpy().copy()
        return LoraWeights({"x": matrix}, {"x": matrix}, 1.0)


class Walk:
    """All that processes killed one after another can leave, and what the next ones make of it."""

    def __init__(self, store: Store, kind: type[Checkpoint] = Checkpoint) -> None:
        self.bad: list[str] = []
        self._store, self._kind = store, kind
        self._known: set[object] = set()
        self._right = Process(store, kind).train(Steps(Journal(), "undisturbed"))

    def go(self) -> int:
        """Walk every history until one goes wrong; returns the most kills in a row that left something new."""
        left, kills = self._after(Left()), 0
        while left and not self.bad:
            left, kills = [new for one in left for new in self._after(one)], kills + 1
        return kills

    def _after(self, before: Left) -> list[Left]:
        """Run a process to its end; what a kill before each of its lines would have left, where that is new."""
        _lay_down(self._store, before.files)
        process, found = Process(self._store, self._kind, before.steps), list[Left]()

        def look(line: str) -> None:
            left = Left(process.kept, _taken(self._store), (*before.lines, line))
            if left.key not in self._known:
                self._known.add(left.key)
                found.append(left)

        with _before_every_line(look):
            process.run()
        self.bad += [f"{wrong} after kills at {', '.join(before.lines)}" for wrong in self._wrong(before, process)]
        return found

    def _wrong(self, before: Left, process: Process) -> Iterator[str]:
        if process.begun < before.steps:
            yield f"{before.steps - process.begun} kept steps lost"
        if process.counted != STEPS:
            yield f"{process.counted} steps counted"
        if process.weights is None or not np.array_equal(process.weights.b["x"], self._right.b["x"]):
            yield "other weights"
        if any(not path.name.startswith(PARTIAL) for path in _places(self._store)):
            yield "a journal outlives its run"


class TrustsNames(Checkpoint):
    """Leaves journals named of which none was written; the next writing then takes them for whole."""

    def load(self) -> bytes | None:
        named = self._file.read_bytes() if self._file.exists() else b""
        found = super().load()
        if found is None and named:
            write_atomic(self._file, [named])
        return found


def test_no_kept_step_is_lost_wherever_processes_die(owner: Owner) -> None:
    """However many in a row: the next goes on from the last step kept, to the same bits, and leaves nothing behind."""
    walk = Walk(owner[2])
    assert walk.go() > 2
    assert not walk.bad, walk.bad


def test_the_walk_sees_what_is_lost_to_names_without_a_journal(owner: Owner) -> None:
    """The first journal is named and not written, the next process takes it for written, and dies in the second."""
    walk = Walk(owner[2], TrustsNames)
    walk.go()
    assert any(wrong.startswith("1 kept steps lost") for wrong in walk.bad)


@contextmanager
def _before_every_line(look: Callable[[str], None]) -> Iterator[None]:
    """Call `look` with its place before every line of the watched files."""

    def trace(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ANN401 - a trace function's type
        del event, argument
        if frame.f_code.co_filename not in WATCHED:
            return None
        look(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(earlier)


def _places(store: Store) -> Sequence[Path]:
    """The files a journal is made of, whole or not."""
    named, folder = pointer(store.home), store.home.generation(1) / "artefacts"
    return [*named.parent.glob(named.name), *named.parent.glob(f"{PARTIAL}*"), *folder.iterdir()]


def _taken(store: Store) -> dict[Path, bytes]:
    """All of it, as a kill would leave it now."""
    return {path: path.read_bytes() for path in _places(store)}


def _lay_down(store: Store, left: Mapping[Path, bytes]) -> None:
    """Put it back."""
    for path in _places(store):
        path.unlink()
    for path, data in left.items():
        path.write_bytes(data)
