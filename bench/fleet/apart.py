"""The link and its devices in a process of their own, as a SuperLink is one: what is left is the server's memory."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from flwr.superlink.grid.http_grid import HttpGrid

from federation.simulation import Answer, LoopGrid

Crowd = Callable[[], Mapping[int, Answer]]


class _Far:
    """Flower's runtime interface at the other end of a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._mine = threading.Lock()  # Flower pushes objects from several threads

    def __getattr__(self, name: str) -> Callable[[object], Any]:
        def call(request: object) -> Any:  # noqa: ANN401 - Flower's answer
            with self._mine:
                self._pipe.send((name, request))
                return self._pipe.recv()

        return call


class FarGrid(LoopGrid):  # type: ignore[misc]
    """A Grid whose link is elsewhere."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__({})
        self._link = _Far(pipe)  # type: ignore[assignment]


@contextmanager
def apart(crowd: Crowd, at_once: int | None = 1) -> Iterator[tuple[HttpGrid, dict[int, str]]]:
    """Make `crowd` in another process; yield a Grid over it and node id -> device key."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_serve, args=(there, crowd, at_once), daemon=True)
    child.start()
    try:
        yield FarGrid(here), here.recv()
    finally:
        here.send(None)
        child.join()


def _serve(pipe: Connection, crowd: Crowd, at_once: int | None) -> None:
    """Answer until told to end."""
    everyone = crowd()
    pipe.send({node: getattr(device, "device", "") for node, device in everyone.items()})
    link = LoopGrid(everyone, at_once=at_once)._runtime_client
    while (asked := pipe.recv()) is not None:
        name, request = asked
        pipe.send(getattr(link, name)(request))
