"""A fleet server that runs: keeps Flower and the web process alive, holds due rounds, keeps signatures fresh.

One per folder. It may be killed at any moment: whatever it started ends with it, and the next one goes on with the
round that was open. The operator's words (halt, a round now, revoke) come through the state.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from federation import links, repository
from federation.charter import Charter
from federation.control import Control, control
from federation.keeper import Keeper
from federation.pki import load_signing_key
from federation.plan import Plan, ServerFolder
from federation.processes import Child, healthy, spawn
from federation.publishing import sync
from federation.server import HALTED
from federation.state import FleetState
from store.errors import CorrigibleError, NetworkError
from store.files import private_folder
from store.locks import FileLock

WANTED = "round wanted"  # the operator asked for a round now
LAST = "last run began"
SINCE = "rounds on file before the run"  # of a run that shall begin a new one; empty for one that repeats a round
LOOK = 1.0  # seconds between two looks at the processes
AGAIN = 15.0  # least seconds between two runs for the same round
ASK = 3.0  # seconds between two looks at Flower; each costs it a few requests
SIGNING = 3600.0  # seconds between two looks at what is about to expire

Tell = Callable[[str, dict[str, object]], None]  # an event and its figures


@dataclass(slots=True)
class Server:
    """One running fleet server.

    Args:
        folder: made by `create_server`, with a charter and a plan.
        charter: the operator's settings.
        tell: hears of what happens.
    """

    folder: ServerFolder
    charter: Charter
    tell: Tell
    state: FleetState = field(init=False)
    keeper: Keeper = field(init=False)
    _plan: Plan = field(init=False)
    _run: int | None = None
    _signed: float = 0.0
    _asked: float = 0.0
    _ended: set[str] = field(default_factory=set)
    _waiting: str = ""

    def __post_init__(self) -> None:
        self.state = self.folder.state()
        self._plan = Plan.read(self.folder.plan)
        scratch = self.folder.root / "processes"
        private_folder(scratch)
        port = self.charter.superlink
        self.keeper = Keeper(
            {
                "superlink": lambda: links.superlink(self.folder, port, scratch),
                "superexec": lambda: links.superexec(self.folder, port, scratch),
                "web": lambda: _web(self.folder.root, scratch),
            },
            lambda name, what: self.tell("process", {"name": name, "what": what}),
        )

    def run(self, going: Callable[[], bool]) -> None:
        """Serve while `going` says so.

        Raises:
            Locked: another server runs in this folder.
        """
        with FileLock(self.folder.root / "up.lock", "this fleet's server"):
            self._begin()
            self.state.log("server started")
            try:
                while going():
                    self._step()
                    time.sleep(LOOK)
            finally:
                self.keeper.close()
                with suppress(CorrigibleError):
                    self.state.log("server stopped")

    def _begin(self) -> None:
        """Mend what a dead server left half done between a release and its publication."""
        sync(self.folder, self.state, load_signing_key(self.folder.release_key))

    def _step(self) -> None:
        """One look at everything; what cannot be done now is done at the next look."""
        self._ended |= set(self.keeper.tend())
        if time.monotonic() < self._asked + ASK:
            return
        self._asked = time.monotonic()
        try:
            if time.monotonic() - self._signed > SIGNING or not self._signed:
                repository.refresh(self.folder)
                self._signed = time.monotonic()
            if not healthy(self.charter.superlink, self.folder.authority)():
                return
            with control(f"127.0.0.1:{self.charter.superlink}", self.folder.authority) as operator:
                self._shut_out(operator)
                self._hold(operator, restarted="superexec" in self._ended)
            self._ended.clear()
        except CorrigibleError as error:
            self._say(error.message)

    def _shut_out(self, operator: Control) -> None:
        """Take Flower's admission from devices that were revoked."""
        revoked = {node.node_id for node in self.state.nodes() if node.revoked}
        for node_id in revoked & operator.registered() if revoked else ():
            operator.unregister(node_id)
            self.tell("revoked", {"node": node_id})

    def _hold(self, operator: Control, *, restarted: bool) -> None:
        """Follow the run in hand; begin one when it is time."""
        if self._run is not None:
            standing = operator.state(self._run)
            if restarted and not standing.startswith("finished"):
                operator.stop(self._run)
            elif not standing.startswith("finished"):
                return
            self.tell("run", {"run": str(self._run), "state": standing})
            self._run = None
        if self._due(operator):
            on_file = "" if self.state.unfinished() else str(len(self.state.rounds()))
            self.state.put(SINCE, on_file)
            self.state.put(LAST, repr(time.time()))
            self.state.take(WANTED)
            self._run = operator.start(self.folder.plan)
            self._waiting = ""
            self.tell("run", {"run": str(self._run), "state": "started"})

    def _due(self, operator: Control) -> bool:
        """Say whether a round should begin now."""
        if self.state.get(HALTED):
            if self.state.get(SINCE):
                self.state.take(SINCE)  # a halted round is not held later
            return False
        since = time.time() - float(self.state.get(LAST) or 0.0)
        left = not 0 <= since < AGAIN and (self._lost() or self.state.unfinished() is not None)
        if not (left or self.state.get(WANTED) or since >= self.charter.interval):
            return False
        online, quorum = len(operator.online() & set(self.state.admitted())), self._plan.pace.quorum
        if online < quorum:
            self._say(f"waiting for {quorum} devices, {online} are online")
            return False
        return True

    def _lost(self) -> bool:
        """Say whether the last run ended before the round that it was started for was on file."""
        on_file = self.state.get(SINCE)
        return bool(on_file) and len(self.state.rounds()) <= int(on_file or 0)

    def _say(self, words: str) -> None:
        """Tell why nothing happens, once."""
        if words != self._waiting:
            self._waiting = words
            self.tell("waiting", {"reason": words})


def _web(root: Path, scratch: Path) -> Child:
    """Start the process that serves HTTP."""
    return spawn("web", [sys.executable, "-m", "federation.web", str(root), str(os.getpid())], scratch)


def reachable(charter: Charter, folder: ServerFolder) -> None:
    """Check that a running server answers.

    Raises:
        NetworkError: it does not.
    """
    if not healthy(charter.superlink, folder.authority)():
        raise NetworkError("The fleet's server is not running.", hint="`corrigible fleet up` starts it.")
