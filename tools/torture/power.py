"""Power cuts: replay a system-call trace of the writer up to any point, losing what was not yet on the disk.

The model. Writes and truncations of a file are safe once that file was synced; each later one is kept, dropped,
or torn at a sector, independently. Creating, renaming and removing a name is safe once its folder was synced;
later ones are kept up to a random point. Shared memory files are not files. Needs `strace` (Linux).
"""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from store.keys import Keys, unlock
from store.paths import Home
from store.store import Store
from tools.torture.common import Outcome, lost, new_home, snapshot

SECTOR = 512
COMMITS = 260
CALLS = (
    "openat,open,creat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat"
)
_LINE = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (-?\d+)")
_FD = re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Event:
    """One system call on a file below the home, or an acknowledgement."""

    kind: str  # write, truncate, sync, create, remove, rename, ack
    path: str
    data: bytes = b""  # what was written; the new name for a rename; the id for an acknowledgement
    at: int = 0  # offset or size


def run(folder: Path, cycles: int, seed: int = 1, commits: int = COMMITS, synchronous: str = "FULL") -> Outcome:
    """Replay `cycles` power cuts at random points of one trace."""
    outcome, random_ = Outcome("power" if synchronous == "FULL" else f"power ({synchronous})"), random.Random(seed)
    home = new_home(folder / "power", 10)
    snapshot(home, folder / "before")
    events = list(record(home, folder / "trace", commits, synchronous))
    outcome.facts["events"] = len(events)
    outcome.facts["acknowledged"] = sum(event.kind == "ack" for event in events)
    keys, state = unlock(home), Home.at(folder / "state")
    disk = Disk({str(path): path.read_bytes() for path in _files(folder / "before")}, folder / "before", home.root)
    acks: set[str] = set()
    done = 0
    for point in sorted(random_.randrange(len(events) + 1) for _ in range(cycles)):
        for event in events[done:point]:
            disk.take(event)
            acks.update(event.data.decode().split() if event.kind == "ack" else ())
        done = point
        lay_out(folder / "before", state.root, home.root, disk.after_cut(random_))
        outcome.cycles += 1
        _check(state, keys, acks, point, outcome)
    return outcome


def _check(state: Home, keys: Keys, acks: set[str], point: int, outcome: Outcome) -> None:
    """Open what the cut left and look for everything acknowledged before it."""
    try:
        with Store.open(state, keys) as store:
            missing = lost(store, acks)
            alarm = bool(store.damage or store.verify().problems)
    except Exception as error:  # whatever it is, it is an answer to the question whether the store opens
        outcome.add("unopenable")
        outcome.bad.append(f"cut at {point}: {type(error).__name__}")
        return
    outcome.add("lost", len(missing))
    outcome.add("false alarms", alarm)
    if missing or alarm:
        outcome.bad.append(f"cut at {point}: {len(missing)} lost" + (", damage reported" if alarm else ""))


def record(home: Home, trace: Path, commits: int, synchronous: str) -> Iterator[Event]:
    """Run the writer under strace and yield what it did to files below the home."""
    command = ["strace", "-f", "-y", "-xx", "-s", "16777216", "-e", f"trace={CALLS}", "-o", str(trace)]
    writer = [sys.executable, "-m", "tools.torture.writer", str(home.root), str(commits), synchronous]
    subprocess.run([*command, *writer], check=True, stdout=subprocess.DEVNULL)
    positions: dict[str, int] = {}
    with trace.open() as lines:
        for line in lines:
            yield from _events(line, str(home.root), positions)


def _events(line: str, root: str, positions: dict[str, int]) -> Iterator[Event]:
    """The event in one line of the trace, if it is one of ours."""
    match = _LINE.match(line)
    if match is None or int(match[3]) < 0:
        return
    call, arguments = match[1], match[2]
    texts = [_plain(text) for text in _TEXT.findall(arguments)]
    path = _path(arguments)
    if call in ("open", "openat", "creat"):
        name = texts[-1].decode()
        if name.startswith(root) and "O_CREAT" in arguments:
            yield Event("create", name)
            positions[name] = 0
        if name.startswith(root) and "O_TRUNC" in arguments:
            yield Event("truncate", name)
    elif call in ("mkdir", "mkdirat"):
        if texts[-1].decode().startswith(root):
            yield Event("mkdir", texts[-1].decode())
    elif call in ("unlink", "unlinkat"):
        if texts[-1].decode().startswith(root):
            yield Event("remove", texts[-1].decode())
    elif call.startswith("rename"):
        if texts[0].decode().startswith(root):
            yield Event("rename", texts[0].decode(), texts[1])
    elif call == "write" and arguments.startswith("1<"):
        yield Event("ack", "", texts[0].strip())
    elif path.startswith(root) and not path.endswith("-shm"):
        yield from _file_event(call, arguments, path, texts, positions)


def _file_event(call: str, arguments: str, path: str, texts: list[bytes], positions: dict[str, int]) -> Iterator[Event]:
    """The event of a call on an open file."""
    if call == "pwrite64":
        yield Event("write", path, texts[0], int(arguments.rsplit(",", 1)[1]))
    elif call == "write":
        yield Event("write", path, texts[0], positions.get(path, 0))
        positions[path] = positions.get(path, 0) + len(texts[0])
    elif call == "ftruncate":
        yield Event("truncate", path, at=int(arguments.rsplit(",", 1)[1]))
    elif call in ("fsync", "fdatasync"):
        yield Event("sync", path)


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(arguments: str) -> str:
    """The path strace noted behind the descriptor."""
    match = _FD.match(arguments)
    if match is None:
        return ""
    return _plain(match[2]).decode() if match[2].startswith("\\x") else match[2]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def lay_out(before: Path, state: Path, root: Path, files: dict[str, bytes]) -> None:
    """Make the folder `state` hold `files`, named as below `root`, in the folders that were there before."""
    if state.exists():
        shutil.rmtree(state)
    for path in [before, *before.rglob("*")]:
        if path.is_dir():
            (state / path.relative_to(before)).mkdir(mode=0o700)
    for name, data in files.items():
        target = state / Path(name).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o600)


class Disk:
    """Files as nodes, names as links to nodes; each with what is safe and what is still on its way."""

    def __init__(self, files: dict[str, bytes], before: Path, root: Path) -> None:
        self._safe: dict[int, bytearray] = {}
        self._pending: dict[int, list[Event]] = {}
        self._names: dict[str, int] = {}  # as the program sees them
        self._safe_names: dict[str, int] = {}
        self._moves: list[tuple[str, dict[str, int | None]]] = []  # folder and change of names, not yet safe
        for path, data in files.items():
            name = str(root / Path(path).relative_to(before))
            self._safe_names[name] = self._names[name] = self._new(data)

    def take(self, event: Event) -> None:
        """One event happens."""
        if event.kind == "create" and event.path not in self._names:
            self._move(event.path, {event.path: self._new(b"")})
        elif event.kind == "remove" and event.path in self._names:
            self._move(event.path, {event.path: None})
        elif event.kind == "rename":
            self._rename(event.path, event.data.decode())
        elif event.kind in ("write", "truncate") and event.path in self._names:
            self._pending[self._names[event.path]].append(event)
        elif event.kind == "sync":
            self._sync(event.path)

    def after_cut(self, random_: random.Random) -> dict[str, bytes]:
        """What a disk may hold: all that is safe and a random part of the rest."""
        names = dict(self._safe_names)
        for _, change in self._moves[: random_.randint(0, len(self._moves))]:
            _apply_names(names, change)
        return {name: self._content(node, random_) for name, node in names.items()}

    def _content(self, node: int, random_: random.Random) -> bytes:
        data = bytearray(self._safe[node])
        fate = random_.choice(["all", "none", "some", "some"])
        for event in self._pending[node]:
            luck = random_.random() if fate == "some" else (0.0 if fate == "all" else 1.0)
            if luck < 0.5:
                _apply(data, event)
            elif luck < 0.75 and event.kind == "write" and len(event.data) > SECTOR:
                cut = SECTOR * random_.randrange(1, (len(event.data) + SECTOR - 1) // SECTOR + 1)
                _apply(data, Event("write", event.path, event.data[:cut], event.at))
        return bytes(data)

    def _new(self, data: bytes) -> int:
        node = len(self._safe)
        self._safe[node], self._pending[node] = bytearray(data), []
        return node

    def _move(self, path: str, change: dict[str, int | None]) -> None:
        _apply_names(self._names, change)
        self._moves.append((str(Path(path).parent), change))

    def _rename(self, old: str, new: str) -> None:
        moved = {name: node for name, node in self._names.items() if name == old or name.startswith(old + "/")}
        change: dict[str, int | None] = dict.fromkeys(moved)
        change |= {new + name[len(old) :]: node for name, node in moved.items()}
        if moved:
            self._move(new, change)

    def _sync(self, path: str) -> None:
        if path in self._names:
            node = self._names[path]
            for event in self._pending[node]:
                _apply(self._safe[node], event)
            self._pending[node] = []
            return
        for folder, change in self._moves:
            if folder == path:
                _apply_names(self._safe_names, change)
        self._moves = [(folder, change) for folder, change in self._moves if folder != path]


def _apply_names(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _apply(data: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del data[event.at :]
        data.extend(bytes(event.at - len(data)))
        return
    end = event.at + len(event.data)
    data.extend(bytes(max(0, end - len(data))))
    data[event.at : end] = event.data
