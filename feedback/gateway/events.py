"""News for the page: that something changed, never what.

Other processes write to the store, too, so the store is looked at.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from store.base import StoreBase
from store.errors import CorrigibleError
from store.records import (
    Activation,
    Adapter,
    Consent,
    Correction,
    Egress,
    Interaction,
    LiveVerdict,
    Rating,
    Receipt,
    Record,
    Review,
    Signal,
    Spend,
    Trial,
    Verdict,
)

LOOK = 1.0  # seconds between looks at the store
QUIET = 10.0  # seconds of silence after which a comment is sent

TOPICS: dict[type[Record], str] = {
    Interaction: "correction",
    Correction: "correction",
    Review: "correction",
    Rating: "correction",
    Signal: "correction",
    Verdict: "learning",
    Receipt: "learning",
    Adapter: "adapter",
    Activation: "adapter",
    Trial: "adapter",
    LiveVerdict: "adapter",
    Consent: "privacy",
    Spend: "privacy",
    Egress: "privacy",
}


class Watcher:
    """Looks at the store and tells listeners what kind of thing changed.

    Args:
        changed: called, in a thread, with the topics that changed.
        learner: a word that changes with the learner's state.
    """

    def __init__(self, store: StoreBase, changed: Callable[[set[str]], None], learner: Callable[[], str]) -> None:
        self._store, self._changed, self._learner = store, changed, learner
        self._seen: dict[str, object] = {}
        self._listeners: set[asyncio.Queue[str]] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            topics = await asyncio.to_thread(self._look)
            for topic in topics:
                self.tell(topic)
            await asyncio.sleep(LOOK)

    def tell(self, topic: str) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            if listener.qsize() < 100:
                listener.put_nowait(topic)

    async def listen(self) -> AsyncIterator[bytes]:
        """Yield server-sent events for one listener."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield b": connected\n\n"
            while True:
                try:
                    topic = await asyncio.wait_for(queue.get(), QUIET)
                    yield f"event: {topic}\ndata: {{}}\n\n".encode()
                except TimeoutError:
                    yield b": ping\n\n"
        finally:
            self._listeners.discard(queue)

    def _look(self) -> set[str]:
        """The topics that changed since the last look."""
        now: dict[str, object] = {}
        with suppress(CorrigibleError):
            now = {kind.__name__: self._store.count(kind) for kind in TOPICS}
            now["learner"] = self._learner()
        by_name = {kind.__name__: topic for kind, topic in TOPICS.items()} | {"learner": "learning"}
        topics = {by_name[name] for name, value in now.items() if self._seen.get(name, value) != value}
        first = not self._seen
        self._seen |= now
        if topics or first:
            with suppress(CorrigibleError):  # a damaged adapter is the doctor's business; the old stack serves on
                self._changed(topics or {"adapter"})
        return topics
