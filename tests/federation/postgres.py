"""A PostgreSQL server started by the tests from Debian's package, on a socket in a folder of its own."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

USER = "postgres"  # initdb refuses to run as root, so as root the package's own user runs it
_numbers = itertools.count()


class Postgres:
    """A running server; ``new_database`` gives the URL of an empty one."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries, self._root = binaries, root

    @staticmethod
    def missing() -> str | None:
        """Why no server can be started here, None when one can."""
        if _binaries() is None:
            return "PostgreSQL is not installed (Debian: apt install postgresql)"
        if os.getuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
            return "as root, PostgreSQL needs its own user"
        return None

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Postgres"]:
        """Start a server and take it down again, with all its files."""
        binaries = _binaries()
        assert binaries is not None
        root = Path(tempfile.mkdtemp(prefix="pg-"))
        if os.getuid() == 0:
            shutil.chown(root, USER)
        server = cls(binaries, root)
        try:
            server._command("initdb", "--auth=trust", "--no-sync", "--username=fleet", "--pgdata", root / "data")
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(root, ignore_errors=True)

    def start(self) -> None:
        """Start it on its socket alone; after a kill, once the kernel has let go of what it held."""
        while not self._started():
            time.sleep(0.2)

    def _started(self) -> bool:
        """Try to start it."""
        data, socket = ["-D", self._root / "data"], ["-k", self._root, "-c", "listen_addresses=", "-F"]
        command = [self._binaries / "postgres", *data, *socket]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._root, stdout=log, stderr=log, **_user())
        while self._run("pg_isready", "--host", self._root) and self._process.poll() is None:
            time.sleep(0.05)
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9 the server and everything it started."""
        for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Take it down at once, as if the power failed."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"fleet{next(_numbers)}"
        self._command("createdb", "--host", self._root, "--username=fleet", name)
        return f"postgresql+psycopg://fleet@/{name}?host={self._root}"

    def _run(self, name: str, *arguments: object) -> int:
        words = [str(self._binaries / name), *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.run(words, check=False, cwd=self._root, **quiet, **_user()).returncode

    def _command(self, name: str, *arguments: object) -> None:
        if code := self._run(name, *arguments):
            raise RuntimeError(f"{name} ended with code {code}")


def _user() -> dict[str, Any]:
    """Who runs the server's programs."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}


def _binaries() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None
