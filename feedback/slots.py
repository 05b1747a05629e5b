"""Places for conversations in the model's memory: who holds which, and what idle ones still remember.

Bookkeeping only: it counts cells and compares tokens. What must be dropped from llama.cpp is returned to the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from feedback.answers import common

Stack = tuple[str, ...]  # digests of adapters, in order of application


@dataclass(slots=True, eq=False)
class Slot:
    """One conversation's place.

    Attributes:
        number: its sequence number in llama.cpp.
        tokens: those whose keys and values are there, computed with `stack`.
        reserved: cells promised to the conversation that holds it; 0 while idle.
        used: when it was last held, on the table's own count.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    stack: Stack = ()
    reserved: int = 0
    used: int = 0


class Slots:
    """A table of slots that share `cells` cells of memory."""

    def __init__(self, count: int, cells: int) -> None:
        self.all = [Slot(number) for number in range(count)]
        self._cells = cells
        self._clock = 0

    @property
    def busy(self) -> int:
        """How many conversations hold a slot."""
        return sum(slot.reserved > 0 for slot in self.all)

    def fits(self, need: int) -> bool:
        """Whether a conversation of `need` cells can start now."""
        promised = sum(slot.reserved for slot in self.all)
        return promised + need <= self._cells and self.busy < len(self.all)

    def take(self, prompt: Sequence[int], stack: Stack, need: int) -> tuple[Slot, list[Slot]]:
        """Give the idle slot that remembers most of `prompt`; call only when it `fits`.

        Returns:
            the slot, and the idle slots whose cells must be freed for it.
        """
        idle = [slot for slot in self.all if not slot.reserved]
        slot = max(idle, key=lambda one: (_shared(one, prompt, stack), not one.tokens, -one.used))
        slot.reserved = need
        return slot, self._crowded_out()

    def free(self, slot: Slot) -> None:
        """Let go of a slot; what it remembers stays until the cells are needed."""
        self._clock += 1
        slot.reserved, slot.used = 0, self._clock

    def forget(self) -> None:
        """Note that no slot remembers anything."""
        for slot in self.all:
            slot.tokens = []

    def _crowded_out(self) -> list[Slot]:
        """Empty idle slots, longest unused first, until everything promised fits."""
        idle = sorted((one for one in self.all if one.tokens and not one.reserved), key=lambda one: one.used)
        room = self._cells - sum(one.reserved for one in self.all) - sum(len(one.tokens) for one in idle)
        gone = []
        for one in idle:
            if room >= 0:
                break
            room += len(one.tokens)
            one.tokens = []
            gone.append(one)
        return gone


def _shared(slot: Slot, prompt: Sequence[int], stack: Stack) -> int:
    """How many tokens of `prompt` the slot can save."""
    return common(slot.tokens, prompt) if slot.stack == stack else 0
