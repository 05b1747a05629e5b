"""Compare the egress ledger with the bytes the kernel was handed: ``python -m tools.egress`` (needs strace).

Runs sessions under strace and adds up what every process wrote to every TCP socket:

- ``local``: a new home, an import, a learning run that finds too little to learn, the privacy commands. No
  process may even try to connect anywhere.
- ``door``: connections through the door that counts a SuperNode's bytes, and an attempt before consent.
- ``upstream``: one question to an upstream server, through the product's own client (where the program has one).

What a session's processes wrote to the far end must be, to the byte, what the ledger says.
"""

import asyncio
import http.server
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "execve,clone,clone3,fork,vfork,connect,sendto,sendmsg,write,writev"
HAS_UPSTREAM = importlib.util.find_spec("feedback.upstream") is not None
DEVICE = ("tools.egress",)  # words in the command lines of what stands for the device
_LINE = re.compile(r"^(\d+) +(.*)$")
_PEER = re.compile(r"^(?:sendto|sendmsg|write|writev)\(\d+<TCP(?:v6)?:\[[^\]>]*->([^>]+)\]>.* = (\d+)$")
_CONNECT = re.compile(r"^connect\(.*sin6?_port=htons\((\d+)\).*(?:inet_addr|inet_pton)\((?:AF_INET6, )?\"([^\"]+)\"")
_CHILD = re.compile(r"^(?:clone|clone3|fork|vfork)\(.* = (\d+)$")


@dataclass
class Capture:
    """What a trace shows: bytes by (command line, peer), and every address that was tried."""

    sent: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    tried: set[str] = field(default_factory=set)

    def bytes_to(self, peer: str, words: tuple[str, ...] = DEVICE) -> int:
        """Bytes that processes with one of `words` in their command line wrote to `peer`."""
        return sum(size for (command, to), size in self.sent.items() if to == peer and any(w in command for w in words))


def read(trace: Path) -> Capture:
    """Add up a trace written by ``strace -f -yy``."""
    found, commands, parents, halves = Capture(), dict[str, str](), dict[str, str](), dict[str, str]()
    for line in trace.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        pid, call = match[1], match[2]
        if call.endswith("<unfinished ...>"):
            halves[pid] = call.removesuffix("<unfinished ...>")
            if not call.startswith("execve"):
                continue
        if call.startswith("<... "):
            call = halves.pop(pid, "") + call.partition("resumed>")[2]
        if call.startswith("execve("):
            commands[pid] = call
        elif child := _CHILD.match(call):
            parents[child[1]] = pid
        elif told := _PEER.match(call):
            found.sent[_command(pid, commands, parents), told[1]] += int(told[2])
        elif tried := _CONNECT.match(call):
            found.tried.add(f"{tried[2]}:{tried[1]}")
    return found


def _command(pid: str, commands: dict[str, str], parents: dict[str, str]) -> str:
    """The command line of the process that a thread or fork belongs to."""
    while pid not in commands and pid in parents:
        pid = parents[pid]
    return commands.get(pid, "")


def traced(session: str, folder: Path) -> tuple[Capture, dict[str, dict[str, int]]]:
    """Run a session under strace; return the capture and what the session's ledgers say, by purpose and destination."""
    trace = folder / f"{session}.trace"
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-s", "300", "-e", f"trace={CALLS}", "-o", str(trace)]
    command += [sys.executable, "-m", "tools.egress", session, str(folder / session)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the {session} session failed: {done.stderr[-2000:]}")
    return read(trace), json.loads(done.stdout.splitlines()[-1])


def local(folder: Path) -> dict[str, dict[str, int]]:
    """A new home, an import, a learning run and a look at the privacy commands; no consent to share."""
    from cli.main import run

    log = folder / "log.jsonl"
    folder.mkdir(parents=True)
    rows = [
        {"prompt": f"movie in room {n}", "answer": "music.stop()", "corrected": f'light.dim(room="{n}", level=15)'}
        for n in range(12)
    ]
    log.write_text("\n".join(json.dumps(row) for row in rows))
    place = ["--home", str(folder / "home")]
    for words in (
        ["init", "--key", "file", "--insecure-key-file"], ["log", "import", str(log)], ["learn"], ["privacy", "status"],
        ["privacy", "preview"], ["doctor"],
    ):  # fmt: skip
        run([*place, *words, "--json"])
    return {}


def door(_folder: Path) -> dict[str, dict[str, int]]:
    """The door alone: one refused attempt before consent, then three connections of different sizes."""
    from federation.door import Door
    from store.memory import MemoryStore
    from store.records import Consent, Egress

    store = MemoryStore()
    with socket.create_server(("127.0.0.1", 0)) as sink:
        threading.Thread(target=_swallow, args=(sink,), daemon=True).start()
        target = f"127.0.0.1:{sink.getsockname()[1]}"
        with Door(store, target, lambda: store.consent("share", "fleet")) as way:
            _push(way.url, target, b"before consent")
            store.add(Consent(purpose="share", granted=True, destination="fleet", time=time.time()))
            for size in (1, 40_000, 333):
                _push(way.url, target, bytes(size))
    return {"transport": {target: sum(entry.size for entry in store.all(Egress))}}


def _push(proxy: str, target: str, data: bytes) -> None:
    """Send `data` to `target` through a proxy and wait for the answer; a refusal ends it."""
    with socket.create_connection(("127.0.0.1", int(proxy.rpartition(":")[2]))) as each:
        each.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        if b"200" in each.recv(4096):
            each.sendall(data)
            each.shutdown(socket.SHUT_WR)
            while each.recv(4096):
                pass


def _swallow(sink: socket.socket) -> None:
    """Read every connection to its end, one after the other."""
    while True:
        each, _ = sink.accept()
        with each:
            while each.recv(65536):
                pass


def upstream(_folder: Path) -> dict[str, dict[str, int]]:
    """One question to an upstream, after consent to it."""
    from store.memory import MemoryStore
    from store.records import Consent, Egress

    store = MemoryStore()
    with _Upstream() as server:
        store.add(Consent(purpose="upstream", granted=True, destination=server.origin, time=time.time()))
        server.ask(store)
    return {"upstream": {server.origin: sum(entry.size for entry in store.all(Egress))}}


class _Upstream:
    """An OpenAI-compatible server on loopback with one answer for everything."""

    class _Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def __enter__(self) -> "_Upstream":
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(self, store: object) -> None:
        """Ask it once through the product's own client."""
        from feedback.stream import Sampling
        from feedback.upstream.client import Upstream
        from feedback.upstream.policy import UpstreamPolicy
        from store.records import Message

        policy = UpstreamPolicy(url=f"{self.origin}/v1", model="m", when=("request",))
        asyncio.run(Upstream(policy, store).ask([Message("user", "is it so?")], Sampling(max_tokens=8)))  # type: ignore[arg-type]


SESSIONS = {"local": local, "door": door, "upstream": upstream}


def compare(folder: Path) -> list[str]:
    """Run the sessions and return what does not agree; prints the figures."""
    bad: list[str] = []
    before, _ = traced("local", folder)
    print(f"before consent: {len(before.tried)} addresses tried, {sum(before.sent.values())} bytes sent", flush=True)
    if before.tried or before.sent:
        bad.append(f"something was sent or tried before consent: {sorted(before.tried)}")
    for session in ("door", "upstream") if HAS_UPSTREAM else ("door",):
        capture, ledger = traced(session, folder)
        for purpose, found in ledger.items():
            for destination, size in found.items():
                seen = capture.bytes_to(destination.removeprefix("http://"))
                print(f"{purpose}: ledger {size} bytes, sockets {seen} bytes", flush=True)
                if size != seen or not size:
                    bad.append(f"{purpose}: the ledger says {size} bytes, the sockets {seen}")
    return bad


def main() -> int:
    """Print the comparison; 1 when anything disagrees."""
    if len(sys.argv) == 3:
        print(json.dumps(SESSIONS[sys.argv[1]](Path(sys.argv[2]))))
        return 0
    if shutil.which("strace") is None:
        raise SystemExit("needs strace")
    with tempfile.TemporaryDirectory(prefix="egress-") as folder:
        bad = compare(Path(folder))
    print("\n".join(bad) if bad else "sockets and ledger agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
