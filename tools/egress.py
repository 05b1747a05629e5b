"""Compare the egress ledger with the bytes the kernel was handed: ``python -m tools.egress`` (needs strace).

Runs two sessions under strace and adds up what every process wrote to every TCP socket:

- ``local``: a new home, an imported conversation, a learning run, the privacy commands, before any consent to share. No
  process may even try to connect anywhere.
- ``sharing``: two devices of a desk fleet take part in a round of real Flower processes, and one of them asks an
  upstream server once. What went to the fleet's server from the devices' processes and to the upstream must be, to the
  byte, what the devices' ledgers say.
"""

import asyncio
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "execve,clone,clone3,fork,vfork,connect,sendto,sendmsg,write,writev"
DEVICE = ("federation.worker", "flower-supernode", "tools.egress")  # command lines that run on a device
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
    """A new home, a conversation, a learning run and a look at the privacy commands; no consent to share."""
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


def sharing(folder: Path) -> dict[str, dict[str, int]]:
    """A round of a desk fleet, and one question to an upstream."""
    from federation.deploy import create_server, run_fleet
    from federation.plan import ServerFolder
    from feedback.models import check_model, embedded_model
    from store.keys import unlock
    from store.records import Consent, Egress
    from store.store import Store
    from tests.federation.test_desk_fleet import make_device, make_plan

    folder.mkdir(parents=True)
    model = check_model(embedded_model())
    server = ServerFolder(folder / "server")
    key = create_server(server.root)
    devices = [make_device(folder, name, key, model) for name in ("ada", "bo")]
    run_fleet(server, make_plan(model), devices, runners=1)
    ledger: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with Store.open(devices[0].home, unlock(devices[0].home)) as store, _Upstream() as upstream:
        store.add(Consent(purpose="upstream", granted=True, destination=upstream.origin, time=time.time()))
        upstream.ask(store)
    for device in devices:
        with Store.open(device.home, unlock(device.home)) as store:
            for entry in store.all(Egress):
                ledger[entry.purpose][entry.destination] += entry.size
    return ledger


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
        from feedback.upstream.client import Upstream
        from feedback.upstream.policy import UpstreamPolicy

        from feedback.stream import Sampling
        from store.records import Message

        policy = UpstreamPolicy(url=f"{self.origin}/v1", model="m", when=("request",))
        asyncio.run(Upstream(policy, store).ask([Message("user", "is it so?")], Sampling(max_tokens=8)))  # type: ignore[arg-type]


def compare(folder: Path) -> list[str]:
    """Run both sessions and return what does not agree; prints the figures."""
    bad: list[str] = []
    before, _ = traced("local", folder)
    print(f"before consent: {len(before.tried)} addresses tried, {sum(before.sent.values())} bytes sent")
    if before.tried or before.sent:
        bad.append(f"something was sent or tried before consent: {sorted(before.tried)}")
    capture, ledger = traced("sharing", folder)
    for purpose in ("transport", "upstream"):
        for destination, size in ledger.get(purpose, {}).items():
            seen = capture.bytes_to(destination.removeprefix("http://"))
            print(f"{purpose}: ledger {size} bytes, sockets {seen} bytes")
            if size != seen or not size:
                bad.append(f"{purpose}: the ledger says {size} bytes, the sockets {seen}")
    if not ledger.get("transport") or not ledger.get("upstream"):
        bad.append("a purpose is missing from the ledger")
    fleet = set(ledger.get("transport", {}))
    direct = sum(capture.bytes_to(one, ("flower-supernode",)) for one in fleet)
    print(f"SuperNodes past the door: {direct} bytes")
    return [*bad, f"{direct} bytes went past the door"] if direct else bad


def main() -> int:
    """Print the comparison; 1 when anything disagrees."""
    if len(sys.argv) == 3:
        print(json.dumps({"local": local, "sharing": sharing}[sys.argv[1]](Path(sys.argv[2]))))
        return 0
    if shutil.which("strace") is None:
        raise SystemExit("needs strace")
    with tempfile.TemporaryDirectory(prefix="egress-") as folder:
        bad = compare(Path(folder))
    print("\n".join(bad) if bad else "sockets and ledger agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
