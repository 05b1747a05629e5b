"""A lock that is handed on in the order of asking.

Answers that grow token by token each take the model for one step at a time; Python's own lock would let the
thread that has just let go take it again at once.
"""

from collections import deque
from threading import Lock
from types import TracebackType


class Turns:
    """A fair mutual exclusion; a context manager. Not reentrant."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._taken = False
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> "Turns":
        with self._guard:
            if not self._taken:
                self._taken = True
                return self
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()  # let go by the one before
        except BaseException:
            self._give_up(mine)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._hand_on()

    def _hand_on(self) -> None:
        """Let the next one in, if any."""
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._taken = False

    def _give_up(self, mine: Lock) -> None:
        """Leave the queue after an interrupt; a turn that has come meanwhile is handed on."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self._hand_on()
