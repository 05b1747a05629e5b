"""Child processes of a desk fleet: started with a clean environment, watched, and always taken down again.

Knows how to start, wait for and stop a process group; knows nothing of Flower's protocol.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import psutil

from store.errors import NetworkError

# Flower's calls home and its installer, off in every process (measured in the facts about Flower 1.41).
SWITCHED_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPERGRID_API_URL": "http://127.0.0.1:9/v1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Child:
    """One process group and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        """Say whether the leader of the group still runs (and reap it when not)."""
        return self.process.poll() is None


def environment(home: Path, door: int = 0) -> dict[str, str]:
    """Return the whole environment of a child: nothing is inherited, so no proxy or token slips in.

    Args:
        door: loopback port of the proxy that all its outgoing connections take; 0: none.
    """
    binaries = Path(sys.executable).parent
    return {
        "PATH": f"{binaries}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "FLWR_HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).parents[1]),  # a child runs the very code that its parent runs
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        **({"ALL_PROXY": f"http://127.0.0.1:{door}"} if door else {}),
        **SWITCHED_OFF,
    }


def spawn(name: str, command: Sequence[str], folder: Path, *, stdin: bytes | None = None, door: int = 0) -> Child:
    """Start `command` in its own process group with ``folder/name`` as its home and ``folder/name.log`` as output.

    Args:
        stdin: what it reads; None: nothing.
        door: see `environment`.
    """
    home = folder / name
    home.mkdir(mode=0o700, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(home, door),
            cwd=home,
            start_new_session=True,
        )
    if stdin is not None and process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(stdin)
            process.stdin.close()
    return Child(name, process, log)


def flower(name: str, command: str, arguments: Mapping[str, object], folder: Path, *, door: int = 0) -> Child:
    """Start one of Flower's commands on a leash; an argument whose value is True is a bare flag."""
    words = [sys.executable, "-m", "federation.leash", str(os.getpid()), command]
    for option, value in arguments.items():
        words += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    return spawn(name, words, folder, door=door)


def stop(children: Sequence[Child], grace: float = GRACE) -> None:
    """End every process group: SIGTERM, wait up to `grace` seconds together, then SIGKILL; all leaders are reaped."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, GRACE)):
        for child in children:
            _signal_group(child, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(_group_alive(child) for child in children):
            time.sleep(0.05)
    for child in children:
        child.process.wait()


def wait_for(
    ready: Callable[[], bool], children: Sequence[Child], *, what: str, seconds: float, poll: float = 0.1
) -> None:
    """Poll `ready` until it holds.

    Raises:
        NetworkError: a child died meanwhile, or `seconds` passed.
    """
    end = time.monotonic() + seconds
    while not ready():
        for child in children:
            if not child.alive():
                raise NetworkError(
                    f"{child.name} ended with code {child.process.returncode} while waiting for {what}",
                    hint=f"Its log is {child.log.name}.",
                )
        if time.monotonic() > end:
            raise NetworkError(f"{what} was not ready after {seconds:.0f} seconds", hint="Look at the logs.")
        time.sleep(poll)


def healthy(port: int, authority: Path) -> Callable[[], bool]:
    """Return a probe of ``https://127.0.0.1:port/health`` under the given authority."""
    context = ssl.create_default_context(cafile=str(authority))

    def probe() -> bool:
        connection = HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return probe


def free_ports(count: int) -> list[int]:
    """Return `count` distinct loopback ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _signal_group(child: Child, number: signal.Signals) -> None:
    """Send `number` to what is left of the child's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def _group_alive(child: Child) -> bool:
    """Say whether a process of the group still runs. Zombies do not count: an idle init may never reap them."""
    child.alive()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == child.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
