"""What was answered, on its way into the store: written behind the answer's back, so that logging blocks no stream.

When the store cannot be written, answers go on; what waits is tried again, up to a bound, and the state says so.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from feedback.recorder import logging_allowed
from store.base import StoreBase
from store.errors import CorrigibleError, UsageError
from store.records import Completion, Interaction, Record

WAITING = 200  # answers that may wait for a store that cannot be written
RETRY = 1.0  # seconds
REMEMBERED = 2000  # completions whose interaction is known without asking the store


@dataclass(frozen=True, slots=True)
class Logging:
    """Whether answers are recorded, and why not."""

    on: bool
    reason: str = ""


class Journal:
    """One thread that writes; the rest of the program only hands records over."""

    def __init__(self, store: StoreBase) -> None:
        self._store = store
        self._queue: queue.Queue[list[Record] | None] = queue.Queue()
        self._guard = threading.Condition()
        self._open: set[str] = set()  # completions handed over or announced, not written yet
        self._known: dict[str, str] = {}  # completion id -> interaction id
        self._trouble = ""
        self._state, self._looked = Logging(False), float("-inf")
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    @property
    def state(self) -> Logging:
        """Whether answers are being recorded, as of this second."""
        now = time.monotonic()
        if now - self._looked > RETRY or self._trouble:
            self._state, self._looked = self._look(), now
        return self._state

    def look_again(self) -> None:
        """Note that the owner has just said something about recording."""
        self._looked = float("-inf")

    def _look(self) -> Logging:
        """Whether answers are being recorded now."""
        if self._trouble:
            return Logging(False, self._trouble)
        try:
            allowed = logging_allowed(self._store)
        except CorrigibleError as error:
            return Logging(False, error.message)
        return Logging(allowed, "" if allowed else "Consent to logging was withdrawn.")

    def announce(self, name: str) -> None:
        """Note that the answer to this completion will follow, so that whoever asks for it waits a little."""
        with self._guard:
            self._open.add(name)

    def drop(self, name: str) -> None:
        """Note that it will not."""
        with self._guard:
            self._open.discard(name)
            self._guard.notify_all()

    def write(self, interaction: Interaction, completion: Completion) -> None:
        """Record an answer soon."""
        if self._queue.qsize() < WAITING:
            self._queue.put([interaction, completion])
        else:
            self.drop(completion.name)

    def interaction(self, name: str, patience: float = 2.0) -> Interaction:
        """Return the interaction behind a completion id (or behind an interaction's own id).

        Raises:
            UsageError: there is none, or it was removed (code ``not_found``).
        """
        with self._guard:
            self._guard.wait_for(lambda: name not in self._open, patience)
            known = self._known.get(name)
        if known is None:
            record = None if name.startswith("sha256:") else self._store.last(Completion, name=name)
            known = name if name.startswith("sha256:") else record.interaction if record else None
        if known is None:
            hint = "It was never logged, or was removed."
            raise UsageError("There is no logged completion with this id.", hint=hint, code="not_found")
        return self._store.get(Interaction, known)

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join(10.0)

    def _work(self) -> None:
        """Write what comes until the end."""
        while (records := self._queue.get()) is not None:
            while not self._written(records) and not self._ending():
                threading.Event().wait(RETRY)

    def _ending(self) -> bool:
        """Whether `close` was called; what waits is then given up if it cannot be written."""
        return None in list(self._queue.queue)

    def _written(self, records: Sequence[Record]) -> bool:
        """Write one answer; False when it should be tried again."""
        interaction, completion = records
        assert isinstance(completion, Completion)
        try:
            if logging_allowed(self._store):
                self._store.add_all(records)
                self._remember(completion.name, interaction.id)
            self._trouble = ""
        except UsageError:  # what cannot be stored will never be
            pass
        except CorrigibleError as error:
            self._trouble = error.message
            return False
        except Exception as error:  # the database's own
            self._trouble = f"The store cannot be written ({type(error).__name__})."
            return False
        self.drop(completion.name)
        return True

    def _remember(self, name: str, interaction: str) -> None:
        with self._guard:
            self._known[name] = interaction
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
