"""Several conversations in one model's memory, each with the adapters it began with.

Conversations advance one step at a time in fair turns; steps that wait for each other's turn and have the same adapters
are computed in one pass. The adapters in force are changed between passes, so a swap waits for nobody and an answer
in flight never notices one.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
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
    """Keeps adapters loaded for an answer that may not have begun yet, for as long as somebody holds it."""

    __slots__ = ("__weakref__", "stack")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack


class Runner:
    """Owns a loaded model: its memory, its adapters and whose turn it is. Safe for several threads."""

    def __init__(self, llama: Llama, architecture: str, parallel: int) -> None:
        self.turns = Turns()
        self._llama, self._architecture = llama, architecture
        self._slots = Slots(min(parallel, SEQUENCES), llama.cells)
        self._changed = Condition()
        self._alone = False  # somebody has, or waits for, the model to himself
        self._closed = False
        self._adapters: OrderedDict[str, Handle] = OrderedDict()
        self._applied: Stack = ()
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
        with self.turns:
            self._llama.close()

    def check_open(self) -> None:
        """Refuse when the model is freed."""
        if self._closed:
            raise failed("The engine is closed.")

    def load(self, adapters: Sequence[tuple[str, bytes]], keep: Stack) -> None:
        """Load adapters (digest, GGUF bytes) so that a conversation may use them; `keep` names others still needed.

        Raises:
            IntegrityError: bytes that do not have their digest, a damaged adapter, or one for another base.
        """
        with self.turns:
            self.check_open()
            for name, data in adapters:
                self._adapter(name, data)
            self._evict({*keep, *(name for name, _ in adapters)})

    def pin(self, stack: Callable[[], Stack]) -> Pin:
        """Keep the adapters that `stack` names loaded."""
        with self.turns:
            pin = Pin(stack())
            self._pins.add(pin)
        return pin

    def take(self, prompt: Sequence[int], stack: Stack, need: int) -> Slot:
        """Wait for a place for a conversation of `need` cells that starts with `prompt`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (not self._alone and self._slots.fits(need)))
            self.check_open()
            slot, crowded_out = self._slots.take(prompt, stack, need)
        with self.turns:
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
    def alone(self, stack: Stack) -> Iterator[Llama]:
        """The model with an empty memory and these loaded adapters, while no conversation is in flight."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._alone)
            self.check_open()
            self._alone = True
            self._changed.wait_for(lambda: self._closed or not self._slots.busy)
        try:
            with self._turn():
                self._apply(stack)
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
        self._apply(slot.stack)
        start = len(slot.tokens)
        line = np.asarray(prompt[start : start + BATCH], np.int32)
        places = np.arange(start, start + len(line), dtype=np.int32)
        outputs = places == len(prompt) - 1
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
        self._apply(first.slot.stack)
        ready = [one for one in together if len(one.slot.tokens) == len(one.line) - 1]
        for one in together:
            if one not in ready:  # an error elsewhere has emptied the memory
                self._recall(one)
        if ready:
            for one, logits in zip(ready, self._advance(ready), strict=True):
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

    def _apply(self, stack: Stack) -> None:
        """Compute with these adapters from here on."""
        if stack != self._applied:
            self._llama.apply([self._adapters[name] for name in stack])
            self._applied = stack

    def _adapter(self, name: str, data: bytes) -> None:
        """Have the adapter of this digest loaded."""
        if name not in self._adapters:
            if digest(data) != name:
                raise IntegrityError("The adapter's bytes do not have its digest.", hint="Roll back to another one.")
            check_adapter(data, self._architecture)
            self._adapters[name] = self._llama.load_adapter(data)
        self._adapters.move_to_end(name)

    def _evict(self, keep: set[str]) -> None:
        """Free the adapters used longest ago, never one that serves, is applied or is pinned."""
        keep |= {*self._applied, *(name for pin in self._pins for name in pin.stack)}
        idle = [name for name in self._adapters if name not in keep]
        for name in idle[: max(0, len(self._adapters) - ADAPTERS)]:
            self._llama.free_adapter(self._adapters.pop(name))

    def _forget(self) -> None:
        """Drop all keys and values."""
        self._slots.forget()
        self._llama.clear()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One caller at a time; a closed engine refuses; after an error or an interrupt nothing is left behind."""
        with self.turns:
            self.check_open()
            try:
                yield
            except BaseException:
                self._slots.forget()
                self._llama.wipe()
                raise
