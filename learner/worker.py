"""A learning run in a process of its own, from the outside: started, watched, paused, hurried, ended.

The parent starts ``python -m learner.worker_child``, writes one line with the job and the store's key into its stdin,
and reads progress and the verdict from its stdout. The key is never an argument or an environment variable. What the
child makes is adopted in one transaction, so killing it at any moment leaves the store and the served adapter as they
were, and its journal lets the next child go on where it was.
"""

import base64
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

from learner.policy import LearnPolicy, Progress
from store.codec import build
from store.errors import CorrigibleError
from store.keys import Keys
from store.paths import Home
from store.records import Verdict

LOCK = "learn"
FOLDERS = ("root", "config", "data", "state", "runtime")
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take."""

    niceness: int = 10  # added to the parent's
    memory: float = 0.0  # MiB of data; 0: no cap
    checkpoint: float = 30.0  # seconds of training between two checkpoints


@dataclass(frozen=True, slots=True)
class Told:
    """Where the child's training stands."""

    phase: str
    step: int
    steps: int
    loss: float


class Worker:
    """One child. A context manager: leaving it ends the child, whatever it is doing.

    Args:
        policy: its `flags.threads` is what the child begins with.
    """

    def __init__(self, home: Home, keys: Keys, model: Path, policy: LearnPolicy, limits: Limits) -> None:
        command = [sys.executable, "-m", "learner.worker_child"]
        self._child = subprocess.Popen(  # its own group: Ctrl-C in the terminal is the parent's to handle
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
        )
        self.pid = self._child.pid
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(_job(home, keys, model, policy, limits))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def next(self, timeout: float | None = None) -> Verdict | Told | None:
        """Return the child's next word, or None after `timeout` seconds without one.

        Raises:
            CorrigibleError: what `learner.cycle.learn` raises; code ``worker_died`` when the child is gone,
                ``out_of_memory`` when it could not get what it needs.
        """
        try:
            said = self._said.get(timeout=timeout)
        except queue.Empty:
            return None
        if said is None:
            raise _died(self._child.wait())
        if "verdict" in said:
            return build(Verdict, said["verdict"])
        if "error" in said:
            raise _error(said["error"])
        return Told(**said)

    def pause(self) -> None:
        """Stop the child between two writes; it keeps its memory and uses no processor."""
        self._send({"do": "pause"})

    def resume(self) -> None:
        """Let a paused child go on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def threads(self, number: int) -> None:
        """Train on `number` threads from the next step on."""
        self._send({"do": "threads", "number": number})

    @property
    def paused(self) -> bool:
        """Whether the child stands still."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).status() in STOPPED
        return False

    def spent(self) -> tuple[float, int]:
        """Return (processor seconds, bytes resident) of the child."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return float(times.user + times.system), int(process.memory_info().rss)
        return 0.0, 0

    def _send(self, message: dict[str, Any]) -> None:
        """One line to the child; a dead one is noticed by `next`."""
        if self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._child.stdin.write(json.dumps(message).encode() + b"\n")
                self._child.stdin.flush()

    def _listen(self) -> None:
        """Pass on what the child says until it is gone."""
        if self._child.stdout is not None:
            with contextlib.suppress(ValueError, OSError):
                for said in _lines(self._child.stdout):
                    self._said.put(said)
        self._said.put(None)


def run_in_child(
    home: Home,
    keys: Keys,
    model: Path,
    policy: LearnPolicy,
    *,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Verdict:
    """Learn once in a child process and return the verdict, which is in the store then.

    Ctrl-C or any error here ends the child.
    Raises:
        Locked: another process is learning.
        CorrigibleError: as `Worker.next`.
    """
    with Worker(home, keys, model, policy, limits or Limits()) as worker:
        while True:
            said = worker.next()
            if isinstance(said, Verdict):
                return said
            if said is not None and progress is not None:
                progress(said.phase, said.step, said.steps, said.loss)


def wait_until(held: "Worker", paused: bool, seconds: float) -> bool:
    """Wait until the child is (not) paused; False when it is still not so after `seconds`."""
    end = time.monotonic() + seconds
    while held.paused is not paused:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _job(home: Home, keys: Keys, model: Path, policy: LearnPolicy, limits: Limits) -> dict[str, Any]:
    """What the child is told first."""
    return {
        "home": {name: str(getattr(home, name)) for name in FOLDERS},
        "key": base64.b64encode(keys.export()).decode(),
        "model": str(model),
        "policy": asdict(policy),
        "limits": asdict(limits),
    }


def _lines(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Whole lines as objects; a line cut off by a killed child is dropped."""
    for line in stream:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _error(said: dict[str, Any]) -> CorrigibleError:
    """The child's error as an error of the same family; those without an exit code of their own are other rooms'."""
    families = {kind.exit_code: kind for kind in CorrigibleError.__subclasses__() if "exit_code" in vars(kind)}
    kind = families.get(said["exit_code"], CorrigibleError)
    return kind(said["message"], hint=said["hint"], code=said["code"])


def _died(status: int) -> CorrigibleError:
    """The error for a child that ended without a word."""
    hint = "Nothing was changed; run it again, and it goes on where it was."
    return CorrigibleError(f"The learning process ended early (status {status}).", hint=hint, code="worker_died")
