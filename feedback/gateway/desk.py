"""Turns for answers: a bounded number grow at once in threads of their own, a bounded number wait, the rest go away."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from queue import SimpleQueue
from threading import Thread

from feedback.answers import Answer
from feedback.engine import Stream
from feedback.gateway.errors import ApiError, of
from feedback.stream import Token
from store.errors import CorrigibleError

Finished = Callable[[Answer], None]


class Desk:
    """Admits answers.

    Args:
        parallel: answers that may grow at once.
        waiting: requests that may wait.
    """

    def __init__(self, parallel: int, waiting: int) -> None:
        self._parallel, self._bound = parallel, parallel + waiting
        self._room = asyncio.Semaphore(parallel)
        self._threads = ThreadPoolExecutor(parallel, "answer")
        self._courier = Courier()
        self._inside = 0
        self._took = 1.0  # seconds that an answer took lately
        self._growing: set[Growth] = set()

    @property
    def load(self) -> tuple[int, int]:
        """(answers growing, requests waiting)."""
        growing = min(self._inside, self._parallel)
        return growing, self._inside - growing

    async def admit(self, begin: Callable[[], Stream], finished: Finished) -> "Growth":
        """Wait for a turn and start an answer.

        Args:
            begin: makes the answer; called in the answer's own thread.
            finished: given the answer at its end, whole or broken off; called in that thread.

        Raises:
            ApiError: 429 with Retry-After when too many wait already; what `begin` raises.
        """
        if self._inside >= self._bound:
            wait = max(1, math.ceil(self._took * (self._inside - self._parallel + 1) / self._parallel))
            message = f"{self._inside} requests are being answered or wait; try again in {wait} s."
            raise ApiError(429, message, code="queue_full", headers={"Retry-After": str(wait)})
        self._inside += 1
        try:
            await self._room.acquire()
        except BaseException:
            self._inside -= 1
            raise
        started = time.monotonic()
        growth = Growth(begin, finished, lambda: self._left(growth, started), self._courier)
        self._growing.add(growth)
        self._threads.submit(growth.run)
        await growth.begun
        return growth

    def close(self) -> None:
        """Break off what grows and end the threads."""
        for growth in list(self._growing):
            growth.cancel()
        self._threads.shutdown(wait=True)
        self._courier.close()

    def _left(self, growth: "Growth", started: float) -> None:
        """Make room after an answer's end."""
        self._took = 0.8 * self._took + 0.2 * (time.monotonic() - started)
        self._growing.discard(growth)
        self._inside -= 1
        self._room.release()


class Courier:
    """Brings news to an event loop behind the back of who has them.

    To wake a loop takes a system call, which gives the interpreter away to the very loop it wakes: a thread that grows
    an answer would wait for what the loop does with a token before it could begin the next.
    """

    def __init__(self) -> None:
        self._news: SimpleQueue[tuple[asyncio.AbstractEventLoop, Callable[[], object]] | None] = SimpleQueue()
        Thread(target=self._run, name="courier", daemon=True).start()

    def tell(self, loop: asyncio.AbstractEventLoop, news: Callable[[], object]) -> None:
        """Have the loop call `news` soon, in the order of telling."""
        self._news.put((loop, news))

    def close(self) -> None:
        """End when everything is told."""
        self._news.put(None)

    def _run(self) -> None:
        """Tell, until the end."""
        while (told := self._news.get()) is not None:
            loop, news = told
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(news)


class Growth:
    """One answer growing in a thread, read from the event loop."""

    def __init__(
        self, begin: Callable[[], Stream], finished: Finished, left: Callable[[], None], courier: Courier
    ) -> None:
        self._begin, self._finished, self._left, self._courier = begin, finished, left, courier
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Token] = deque()
        self._news = asyncio.Event()
        self._told = False  # the loop knows already that there is news
        self._over = False
        self._cancelled = False
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self.stack: tuple[str, ...] = ()  # digests of the adapters that answer; known once it is begun
        self._stream: Stream | None = None
        self._error: CorrigibleError | None = None
        self.answer: Answer | None = None

    def cancel(self) -> None:
        """Break the answer off; what is there of it is still recorded."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    async def batches(self, patience: float) -> AsyncIterator[list[Token]]:
        """Yield tokens as they come, several where they come fast, and an empty list after `patience` seconds of
        silence.

        Raises:
            ApiError: the answer could not be begun or finished.
        """
        while True:
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                yield []
                continue
            self._news.clear()
            self._told = False
            over = self._over
            batch = [self._ready.popleft() for _ in range(len(self._ready))]
            if batch:
                yield batch
            if over:
                break
        if self._error is not None:
            raise of(self._error)

    def run(self) -> None:
        """Grow; the thread's whole work."""
        try:
            with closing(self._begin()) as stream:
                self._stream, self.stack = stream, stream.stack
                self._courier.tell(self._loop, self._begin_told)
                if self._cancelled:
                    stream.cancel()
                for token in stream:
                    self._ready.append(token)
                    self._tell()
                self.answer = stream.answer
            if self.answer is not None:
                self._finished(self.answer)
        except CorrigibleError as error:
            self._error = error
        except Exception as error:
            self._error = CorrigibleError(f"Internal error ({type(error).__name__}).")
        finally:
            self._over = True
            self._courier.tell(self._loop, self._end)

    def _tell(self) -> None:
        """Wake the reader, once for all that comes before it looks."""
        if not self._told:
            self._told = True
            self._courier.tell(self._loop, self._news.set)

    def _begin_told(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def _end(self) -> None:
        if not self.begun.done():
            self.begun.set_exception(of(self._error or CorrigibleError("The answer did not begin.")))
        self._news.set()
        self._left()
