"""Work on several lots at once, each in a process of its own, telling as it goes over a pipe.

For replays and simulations: results and progress must pickle. The children end with the caller, also on Ctrl-C.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from store.errors import CorrigibleError

L = TypeVar("L")
R = TypeVar("R")
GRACE = 5.0  # seconds a child has to end by itself
Tell = Callable[[str, str], None]  # (who, what)


def spread(work: Callable[[L, Tell], list[R]], lots: Sequence[L], tell: Tell) -> list[R]:
    """Do `work` on every lot and return all results, in no particular order.

    Args:
        work: a module-level function of a lot and a way to tell progress.
        lots: one process for each; a single lot is worked on in this process.
        tell: called here with whatever `work` tells anywhere.

    Raises:
        CorrigibleError: what `work` raises; code ``process_died`` when a process ended without a result.
    """
    if len(lots) == 1:
        return work(lots[0], tell)
    spawn = multiprocessing.get_context("spawn")
    started: dict[Connection, BaseProcess] = {}
    try:
        for lot in lots:
            here, there = spawn.Pipe(duplex=False)
            process: BaseProcess = spawn.Process(target=_child, args=(there, work, lot), daemon=True)
            process.start()
            there.close()
            started[here] = process
        return _collect(set(started), tell)
    except BaseException:
        for process in started.values():
            process.terminate()
        raise
    finally:
        for process in started.values():
            process.join(GRACE)
            process.kill()
            process.join()


def _collect(open_ends: set[Connection], tell: Tell) -> list[Any]:
    """Read the children's messages until each has sent its results."""
    found: list[Any] = []
    while open_ends:
        for end in wait(list(open_ends)):
            assert isinstance(end, Connection)
            kind, value = _received(end)
            if kind == "told":
                tell(*value)
            elif kind == "done":
                found += value
                open_ends.discard(end)
            else:
                raise value
    return found


def _received(end: Connection) -> tuple[str, Any]:
    """The next message of a child, or the error that it is gone."""
    try:
        message: tuple[str, Any] = end.recv()
    except EOFError:
        error = CorrigibleError("A working process ended before its time.", code="process_died")
        return "failed", error
    return message


def _leave(*_: object) -> None:
    """End in good order, once: what the libraries do at exit is not disturbed by a second signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _child(end: Connection, work: Callable[[L, Tell], list[R]], lot: L) -> None:
    """Work on one lot and send what is told, then the results or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children, by SIGTERM
    signal.signal(signal.SIGTERM, _leave)
    try:
        end.send(("done", work(lot, lambda who, what: end.send(("told", (who, what))))))
    except CorrigibleError as error:
        end.send(("failed", error))
