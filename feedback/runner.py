"""Several conversations in one model's memory, each with the adapters it began with.

Conversations advance one step at a time in fair turns; steps that wait for each other's turn and have the same adapters
are computed in one pass. Adapters are loaded beside the passes and changed between them, so a swap waits for nobody and
an answer in flight never notices one.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Lock
from weakref import WeakSet

import numpy as np

from feedback.answers import common
from feedback.decoding import Logits
from feedback.llama import BATCH, SEQUENCES, Handle, Llama, failed
from feedback.models import check_adapter
from feedback.slots import Slot, Slots, Stack
from feedback.turns import Turns
from store.errors import IntegrityError
from store.records import digest

ADAPTERS = 8  # kept loaded
PATIENCE = 5.0  # seconds that closing waits for answers in flight


@dataclass(slots=True, eq=False)
class _Step:
    """One more token of a conversation, and what came of it."""

    slot: Slot
    line: Sequence[int]
    logits: Logits | None = None
    failed: bool = False


class Pin:
    """Keeps adapters loaded for as long as somebody holds it."""

    __slots__ = ("__weakref__", "stack")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack


class Runner:
    """Owns a loaded model: its memory, its adapters and whose turn it is. Safe for several threads.

    Of its locks, who holds a turn may take `_plan`, and who holds that may take `_shelf`.
    """

    def __init__(self, llama: Llama, architecture: str, parallel: int) -> None:
        self._turns = Turns()
        self._plan = Turns()  # for loading and freeing adapters, and for a pass with others than the last
        self._shelf = Lock()  # for looking at what is loaded; never held while waiting
        self._llama, self._architecture = llama, architecture
        self._slots = Slots(min(parallel, SEQUENCES), llama.cells)
        self._changed = Condition()
        self._alone = False  # somebody has, or waits for, the model to himself
        self._closed = False
        self._adapters: OrderedDict[str, Handle] = OrderedDict()
        self._applied: Stack = ()
        self._planned = False  # a pass was computed with those applied
        self._steps: deque[_Step] = deque()
        self._pins: WeakSet[Pin] = WeakSet()

    def close(self) -> None:
        """Free the model; answers in flight end with an error at their next step."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._slots.busy, PATIENCE)
        with self._turns, self._plan, self._shelf:
            self._llama.close()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Refuse when the engine is closed; it stays open for the block, which must not wait for anything."""
        with self._shelf:
            self._check_open()
            yield

    def load(self, adapters: Sequence[tuple[str, bytes]]) -> Pin:
        """Load adapters (digest, GGUF bytes); they stay loaded while somebody holds what is returned.

        Raises:
            IntegrityError: bytes that do not have their digest, a damaged adapter, or one for another base.
        """
        pin = Pin(tuple(name for name, _ in adapters))
        with self.open():
            self._pins.add(pin)
        for name, data in adapters:
            if not self._has(name):
                self._read(name, data)
        self._evict()
        return pin

    def take(self, prompt: Sequence[int], stack: Stack, need: int) -> Slot:
        """Wait for a place for a conversation of `need` cells that starts with `prompt`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (not self._alone and self._slots.fits(need)))
            self._check_open()
            slot, crowded_out = self._slots.take(prompt, stack, need)
        with self._turns:
            for one in crowded_out:
                self._llama.keep(one.number, 0)
            if slot.stack != stack:
                slot.tokens, slot.stack = [], stack
        return slot

    def free(self, slot: Slot) -> None:
        """Let go of a conversation's place."""
        with self._changed:
            self._slots.free(slot)
            self._changed.notify_all()

    def prefill(self, slot: Slot, prompt: Sequence[int], alive: Callable[[], bool]) -> Logits | None:
        """Logits after the prompt, shape [vocab]; None when the caller is no longer `alive`.

        What the slot remembers of the prompt is not computed again. Others have their turns between passes.
        """
        with self._turn():
            slot.tokens = slot.tokens[: self._llama.keep(slot.number, common(slot.tokens, prompt[:-1]))]
        while alive():
            with self._turn():
                logits = self._pass(slot, prompt)
            if logits is not None:
                return logits
        return None

    def step(self, slot: Slot, line: Sequence[int]) -> Logits:
        """Logits after the last token of `line`, the whole conversation so far; shape [vocab]."""
        mine = _Step(slot, line)
        self._steps.append(mine)
        with self._turn():
            if mine.logits is None and not mine.failed:
                self._run_steps(mine)
        if mine.logits is None:
            raise failed("An answer computed beside this one failed.")
        return mine.logits

    @contextmanager
    def alone(self, pin: Pin) -> Iterator[Llama]:
        """The model with an empty memory and the adapters pinned, while no conversation is in flight."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._alone)
            self._check_open()
            self._alone = True
            self._changed.wait_for(lambda: self._closed or not self._slots.busy)
        try:
            with self._turn(), self._applying(pin.stack):
                self._forget()
                yield self._llama
                self._forget()
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    # -- inside a turn

    def _pass(self, slot: Slot, prompt: Sequence[int]) -> Logits | None:
        """Feed the next part of a prompt; the logits after its end."""
        start = len(slot.tokens)
        line = np.asarray(prompt[start : start + BATCH], np.int32)
        places = np.arange(start, start + len(line), dtype=np.int32)
        outputs = places == len(prompt) - 1
        with self._applying(slot.stack):
            logits = self._llama.decode(line, places, np.full_like(line, slot.number), outputs)
        slot.tokens = list(prompt[: start + len(line)])
        return logits[0].copy() if len(logits) else None

    def _run_steps(self, first: _Step) -> None:
        """Advance `first` and everybody who waits with the same adapters, in one pass."""
        together = [first, *(one for one in self._steps if one is not first and one.slot.stack == first.slot.stack)]
        together = [one for one in together[:SEQUENCES] if not one.failed and one.logits is None]
        for one in together:
            self._steps.remove(one)
            one.failed = True  # until its logits are there
        ready = [one for one in together if len(one.slot.tokens) == len(one.line) - 1]
        for one in together:
            if one not in ready:  # an error elsewhere has emptied the memory
                self._recall(one)
        if ready:
            with self._applying(first.slot.stack):
                found = self._advance(ready)
            for one, logits in zip(ready, found, strict=True):
                one.slot.tokens.append(one.line[-1])
                one.logits, one.failed = logits.copy(), False

    def _advance(self, steps: Sequence[_Step]) -> Logits:
        """One pass over one token of each conversation, shape [steps, vocab]."""
        if len(steps) == 1:
            return self._llama.step(steps[0].line[-1], len(steps[0].line) - 1, steps[0].slot.number)
        tokens = np.asarray([one.line[-1] for one in steps], np.int32)
        places = np.asarray([len(one.line) - 1 for one in steps], np.int32)
        numbers = np.asarray([one.slot.number for one in steps], np.int32)
        return self._llama.decode(tokens, places, numbers, np.ones(len(steps), np.bool_))

    def _recall(self, step: _Step) -> None:
        """Compute a whole conversation again."""
        self._llama.keep(step.slot.number, 0)
        step.slot.tokens = []
        while step.logits is None:
            step.logits = self._pass(step.slot, step.line)
        step.failed = False

    @contextmanager
    def _applying(self, stack: Stack) -> Iterator[None]:
        """Compute with these adapters.

        The first pass after a change plans its memory anew and counts all loaded adapters for that, so none may come or
        go meanwhile.
        """
        if stack == self._applied and self._planned:
            yield
            return
        with self._plan:
            self._planned = False
            self._llama.apply([self._adapters[name] for name in stack])
            self._applied = stack
            yield
            self._planned = True

    # -- beside the turns

    def _check_open(self) -> None:
        """Refuse when the model is freed."""
        if self._closed:
            raise failed("The engine is closed.")

    def _has(self, name: str) -> bool:
        """Whether the adapter of this digest is loaded; if so, it counts as used now."""
        with self.open():
            if name in self._adapters:
                self._adapters.move_to_end(name)
            return name in self._adapters

    def _read(self, name: str, data: bytes) -> None:
        """Load an adapter."""
        if digest(data) != name:
            raise IntegrityError("The adapter's bytes do not have its digest.", hint="Roll back to another one.")
        check_adapter(data, self._architecture)
        with self._plan:
            if not self._has(name):  # nobody was faster
                adapter = self._llama.load_adapter(data)
                with self._shelf:
                    self._adapters[name] = adapter

    def _evict(self) -> None:
        """Free the adapters used longest ago, never one that is applied or pinned."""
        with self.open():
            keep = {*self._applied, *(name for pin in self._pins for name in pin.stack)}
            idle = [name for name in self._adapters if name not in keep]
            gone = [self._adapters.pop(name) for name in idle[: max(0, len(self._adapters) - ADAPTERS)]]
        if gone:
            with self._plan:
                for adapter in gone if not self._closed else ():  # closing frees them all
                    self._llama.free_adapter(adapter)

    def _forget(self) -> None:
        """Drop all keys and values."""
        self._slots.forget()
        self._llama.clear()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One caller at a time; a closed engine refuses; after an error or an interrupt nothing is left behind."""
        with self._turns:
            self._check_open()
            try:
                yield
            except BaseException:
                self._slots.forget()
                self._llama.wipe()
                raise
