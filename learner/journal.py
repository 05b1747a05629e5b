"""What a learning run has done so far, kept so that the next process goes on exactly there.

A run is a fixed sequence of trainings and judgements. Each finished one is kept by name; the training in progress is
kept with its optimiser every so often. All of it is one sealed artefact of the store, and a small file beside the
store names the newest one. Order of writing: the file names new and old, the new artefact is written, the old one is
dropped; whichever moment a crash comes at, one of the two named is whole.

A journal without a checkpoint keeps nothing: replays and simulations use that.
"""

import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from learner.lora import LoraWeights
from learner.usage import Cost, Usage, pointer
from store.base import StoreBase
from store.errors import IntegrityError
from store.files import write_atomic
from store.paths import Home
from store.records import HASH_TAG, digest

T = TypeVar("T")
Doubt = (pickle.PickleError, ValueError, KeyError, TypeError, RuntimeError, EOFError)


class Checkpoint:
    """Where a journal lies: an artefact of `store`, named by the file `learn.checkpoint` in the state folder."""

    def __init__(self, store: StoreBase, home: Home) -> None:
        self._store, self._file = store, pointer(home)

    def load(self) -> bytes | None:
        """Return the newest whole journal, and name and keep that one alone; where none is whole, name none.

        One that was being written when the process died must not stay named as the newest: the next writing would take
        it for whole, and let go of the one that is or, given the same bytes again, write nothing.
        """
        names = self._names()
        for name in names:
            with suppress(IntegrityError):
                found = self._store.artefact(name)
                break
        else:
            if names:
                self.drop()
            return None
        for other in names:
            if other != name:
                self._store.drop_artefact(other)
        if names != [name]:
            write_atomic(self._file, [json.dumps([name]).encode()])
        return found

    def save(self, data: bytes) -> None:
        """Replace the journal."""
        old, new = self._names()[:1], digest(data)
        if old == [new]:
            return
        write_atomic(self._file, [json.dumps([new, *old]).encode()])
        self._store.put_artefact(data)
        for name in old:
            self._store.drop_artefact(name)

    def drop(self) -> None:
        """Remove the journal."""
        names = self._names()
        for name in names:
            self._store.drop_artefact(name)
        self._file.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        try:
            names = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return []
        return [name for name in names if isinstance(name, str) and name.startswith(HASH_TAG)]


@dataclass
class Journal:
    """The memory of one run. Not for several threads.

    Args:
        checkpoint: where to keep it; None: nowhere.
        every: seconds of training between two checkpoints.
        quiet: held while something is written; whoever wants to stop the process takes it first.
    """

    checkpoint: Checkpoint | None = None
    every: float = 30.0
    quiet: AbstractContextManager[Any] = field(default_factory=threading.Lock)
    measure: Callable[[], Cost] = Cost  # what this process has cost until now
    memory: dict[str, Any] = field(default_factory=dict)  # what training finds out about the reference, by item
    _before: Usage = field(default_factory=Usage)
    _state: dict[str, Any] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)

    def open(self, identity: str, examples: Sequence[str], available: frozenset[str]) -> tuple[str, ...] | None:
        """Take up the run that was cut off, or begin one.

        Args:
            identity: everything besides the corrections that a run's result depends on, as one string.
            examples: ids of what would be learned from now, in order.
            available: ids of what is still in the store.
        Returns: the ids of the run that is taken up; None when a new one begins.
        """
        kept = self._load()
        used = tuple(kept.get("examples", ()))
        if kept.get("identity") == identity and used and available.issuperset(used):
            self._state = kept
            self._before = Usage(**kept["usage"])
            self.memory.update(kept["memory"])
        else:
            self._state = {"identity": identity, "examples": list(examples), "weights": {}, "notes": {}, "steps": None}
            used = ()
        self._before.attempts += 1
        return used or None

    def trained(self, name: str, work: Callable[["Steps"], LoraWeights]) -> LoraWeights:
        """Return the weights of the training called `name`, trained at most once."""
        known = self._state.setdefault("weights", {})
        if name not in known:
            known[name] = _flat(work(Steps(self, name)))
            self._state["steps"] = None
            self.save()
        return _weights(known[name])

    def noted(self, name: str, work: Callable[[], T]) -> T:
        """Return what `work` gives, a JSON value, worked out at most once."""
        known = self._state.setdefault("notes", {})
        if name not in known:
            known[name] = work()
            self.save()
        value: T = known[name]
        return value

    def save(self) -> None:
        """Keep everything now."""
        self._saved = time.monotonic()
        if self.checkpoint is None:
            return
        buffer = io.BytesIO()
        torch.save({**self._state, "memory": self.memory, "usage": asdict(self.usage)}, buffer)
        with self.quiet:
            self.checkpoint.save(buffer.getvalue())

    def close(self) -> None:
        """The run has ended: forget it."""
        if self.checkpoint is not None:
            with self.quiet:
                self.checkpoint.drop()

    @property
    def usage(self) -> Usage:
        """What the run has cost until now."""
        return self._before.with_cost(self.measure())

    def count(self, tokens: int) -> None:
        """Count one step of training on `tokens`."""
        self._before.steps += 1
        self._before.tokens += tokens

    @property
    def due(self) -> bool:
        """Whether the next checkpoint of a training is due."""
        return self.checkpoint is not None and time.monotonic() - self._saved >= self.every

    def _load(self) -> dict[str, Any]:
        """What is kept; nothing when it cannot be read."""
        data = self.checkpoint.load() if self.checkpoint else None
        if data is None:
            return {}
        try:
            kept: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
            return kept if isinstance(kept, dict) else {}
        except Doubt:
            return {}


@dataclass(frozen=True, slots=True)
class Steps:
    """The training in progress, as the training loop sees it."""

    journal: Journal
    name: str

    def resume(self, parameters: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> int:
        """Put everything back as it was after the last checkpoint and return the steps done by then.

        Args:
            parameters: what is trained, in a fixed order; written in place.
        """
        kept = self.journal._state.get("steps")
        if not kept or kept["name"] != self.name or len(kept["parameters"]) != len(parameters):
            return 0
        with torch.no_grad():
            for mine, old in zip(parameters, kept["parameters"], strict=True):
                mine.copy_(old)
        optimizer.load_state_dict(kept["optimizer"])
        return int(kept["step"])

    def done(
        self, step: int, tokens: int, parameters: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Count one step; keep it when a checkpoint is due."""
        self.journal.count(tokens)
        if self.journal.due:
            self.journal._state["steps"] = {
                "name": self.name, "step": step, "parameters": [one.detach() for one in parameters],
                "optimizer": optimizer.state_dict(),
            }  # fmt: skip
            self.journal.save()


def _flat(weights: LoraWeights) -> dict[str, Any]:
    """An adapter as tensors."""
    return {
        "a": {path: torch.from_numpy(array) for path, array in weights.a.items()},
        "b": {path: torch.from_numpy(array) for path, array in weights.b.items()},
        "alpha": weights.alpha,
    }


def _weights(flat: dict[str, Any]) -> LoraWeights:
    """Back to arrays."""
    a, b = ({path: np.asarray(tensor) for path, tensor in flat[name].items()} for name in ("a", "b"))
    return LoraWeights(a, b, flat["alpha"])
