"""The running gateway as other commands find it: a file for the owner's eyes that names its address and its secret."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.background import holder
from store.files import write_atomic
from store.paths import Home

LOCK = "gateway"


@dataclass(frozen=True, slots=True)
class Running:
    """One run of the gateway; `control` is the secret that may do everything on it."""

    process: int
    address: str
    control: str
    started: float

    def save(self, home: Home) -> None:
        """Write the file, mode 0600."""
        home.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(_path(home), [json.dumps(asdict(self)).encode()])


def new_secret() -> str:
    """Return a fresh control secret."""
    return secrets.token_urlsafe(32)


def running(home: Home) -> Running | None:
    """Return the gateway that runs on this home, None when none does; a file left by a dead one is not believed."""
    process = holder(home.lock(f"job-{LOCK}"))
    if process is None:
        return None
    try:
        found = Running(**json.loads(_path(home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Running(process, "starting", "", 0.0)
    return found if found.process == process else Running(process, "starting", "", 0.0)


def forget(home: Home) -> None:
    """Remove the file."""
    _path(home).unlink(missing_ok=True)


def notify(word: str) -> None:
    """Tell systemd, where it started us, e.g. ``READY=1`` or ``WATCHDOG=1``."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as out:
        try:
            out.connect("\0" + address[1:] if address.startswith("@") else address)
            out.send(word.encode())
        except OSError:
            return


def _path(home: Home) -> Path:
    return home.runtime / "gateway.json"
