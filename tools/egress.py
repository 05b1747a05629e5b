"""Compare the egress ledger with the bytes the kernel was handed: ``python -m tools.egress`` (needs strace).

A whole session by commands alone: a server, three devices that join and take part in rounds, take the release, ask an
upstream, withdraw their consent. Every command of a device runs under strace, with all the processes it starts. Then,
for each device and each address, what its sockets were handed must be, to the byte, what its ledger says; before the
first word of consent no address may even be tried.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from federation.processes import free_ports
from federation.update import HEADER
from store.exchange import export_plain
from store.keys import unlock
from store.memory import MemoryStore
from store.paths import Home
from store.records import Correction, Interaction, Message, Spend, digest
from store.store import Store
from tests.gateway.far import GOOD, certificate, far, reply
from tools.capture import Capture, read, under
from tools.fleet_demo import PATIENCE, call_program, program

DEVICES = 3
LOOKS = (("learn",), ("privacy", "status"), ("privacy", "preview"), ("doctor",), ("status",))  # before any consent


@dataclass
class Device:
    """One device, each of whose commands is traced."""

    home: Path
    traces: Path
    made: list[Path] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        """Return a command line of the program, traced."""
        self.made.append(self.traces / f"{self.home.name}-{len(self.made)}.trace")
        return [*under(self.made[-1]), *program(self.home, *words), "--json"]

    def call(self, *words: str, code: int | None = 0) -> dict[str, Any]:
        """Run one command to its end and return its data, or its error; `code`: the exit code it must have."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False)
        if code is not None and done.returncode != code:
            raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        data: dict[str, Any] = answer.get("data") or answer["error"]
        return data

    @contextmanager
    def staying(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that stays; it is asked to end with SIGTERM, and its trace is whole afterwards."""
        with (self.traces / f"{self.home.name}.log").open("ab") as out:
            tracer = subprocess.Popen(self.command(*words), stdout=out, stderr=subprocess.STDOUT)
        try:
            yield tracer
        finally:
            for child in psutil.Process(tracer.pid).children():
                child.send_signal(signal.SIGTERM)
            tracer.wait(120)

    def seen(self) -> Capture:
        """What all its commands so far handed to sockets."""
        return sum(map(read, self.made), Capture())

    def ledger(self) -> list[dict[str, Any]]:
        """Its egress ledger."""
        entries: list[dict[str, Any]] = self.call("privacy", "ledger")["egress"]
        return entries


def before(device: Device, looks: tuple[tuple[str, ...], ...] = LOOKS) -> list[str]:
    """A new home, an import and other commands; nothing is tried. Return what is wrong."""
    log = device.traces / f"{device.home.name}.jsonl"
    said = MemoryStore()
    for n in range(12):
        words = (Message("user", f"movie in room {n}"),)
        asked = Interaction(messages=words, answer="music.stop()", model=digest(b""), time=time.time())
        right = Correction(interaction=asked.id, corrected=f'light.dim(room="{n}", level=15)', time=time.time())
        said.add_all([asked, right])
    export_plain(said, log, "records")
    device.call("init", "--key", "file", "--insecure-key-file")
    device.call("log", "import", str(log))
    for words in looks:
        device.call(*words, code=None)
    found = device.seen()
    return [f"before consent {device.home.name} tried {sorted(found.tried)}"] if found.tried or found.sent else []


def join(device: Device, link: str) -> None:
    """Look at the terms without agreeing, then agree."""
    device.call("fleet", "join", link, code=2)
    device.call("fleet", "join", link, "--yes")


def ask(device: Device, url: str, authority: Path | None) -> None:
    """Have the device's gateway ask an upstream once before consent to it and once after."""
    authorities = f'authorities = "{authority}"\n' if authority else ""
    settings = f'[upstream]\nurl = "{url}"\nmodel = "m"\nwhen = ["request"]\n{authorities}'
    Home.at(device.home).config.write_text(settings)
    token = device.call("gateway", "add-token", f"capture{len(device.made)}", "--scope", "chat")["token"]
    with device.staying("up", "--foreground", "--no-learner", "--port", "0"):
        found = _gateway(device.home)
        for agreed in (False, True):
            if agreed:
                device.call("privacy", "consent", "upstream", "--grant", "--yes")
            models = [one["id"] for one in _told(f"{found}/v1/models", token)["data"]]
            (model,) = (name for name in models if name.endswith("@upstream"))
            said = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
            source = _told(f"{found}/v1/chat/completions", token, said)["corrigible"]["source"]
            if (source == "upstream") != agreed:
                raise SystemExit(f"the answer came from the {source}")


def _told(url: str, token: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the gateway as any program would."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps(said).encode() if said else None
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def _gateway(home: Path) -> str:
    """Wait for the gateway and return its address."""
    from cli.runtime import running

    end = time.monotonic() + PATIENCE
    while (found := running(Home.at(home))) is None or not found.control:
        if time.monotonic() > end:
            raise SystemExit("the gateway did not come up")
        time.sleep(0.2)
    return found.address


def compare(device: Device) -> tuple[list[str], str]:
    """Return where sockets and ledger disagree, and the figures in words.

    Under TLS the streams count (purpose ``transport``); what they carried is in entries of its own. Without TLS the
    message is the stream.
    """
    entries, seen = device.ledger(), device.seen()
    said = Counter[str]()
    for one in entries:
        plain = one["destination"].removeprefix("http://")
        if one["purpose"] == "transport" or plain != one["destination"]:
            said[plain.removeprefix("https://").replace("localhost", "127.0.0.1")] += one["size"]
    wrong = [
        f"{device.home.name} to {peer}: ledger {said[peer]} bytes, sockets {seen.sent[peer]}"
        for peer in said.keys() | seen.sent.keys()
        if said[peer] != seen.sent[peer]
    ]
    wrong += [f"{device.home.name} tried {address}" for address in seen.tried - said.keys()]
    purposes = Counter(one["purpose"] for one in entries)
    told = ", ".join(f"{peer} {size:,}" for peer, size in sorted(seen.sent.items()))
    return wrong, f"{device.home.name}: sockets {told} bytes; ledger {said.total():,} bytes in {dict(purposes)}"


def withdraw(device: Device, seconds: float = 10.0) -> list[str]:
    """Withdraw consent, then ask for a release and start to take part: nothing more may go."""
    device.call("privacy", "consent", "share", "--withdraw")
    already = device.seen().sent.total()
    device.call("fleet", "receive", code=15)
    with device.staying("fleet", "run", "--any-time"):
        time.sleep(seconds)
    more = device.seen().sent.total() - already
    return [f"{more} bytes went after consent was withdrawn"] if more else []


def preview(device: Device) -> bytes:
    """Return the bytes that the device says its next message will be."""
    out = device.traces / "preview.bin"
    told = device.call("privacy", "preview", "--out", str(out))
    if "\n".join(told["account"]) != out.with_name(f"{out.name}.txt").read_text().strip():
        raise SystemExit("the account beside the preview's bytes is another")
    return out.read_bytes()


def _newest(device: Device) -> bytes:
    """The preview of a device that has seen the newest release: the next round starts from that one."""
    device.call("fleet", "receive", code=None)
    return preview(device)


def last_message(device: Device) -> bytes:
    """Return the bytes of the last update that left the device, kept for a server that lost them."""
    home = Home.at(device.home)
    with Store.open(home, unlock(home)) as store:
        spend = store.last(Spend)
        return store.artefact(spend.payload) if spend else b""


def session(root: Path, rounds: int) -> list[str]:
    """Run it all and return what is wrong; prints the figures."""
    front, console, superlink = free_ports(3)
    server = root / "server"
    call_program(
        server, "fleet", "init", "--operator", "the capture", "--quorum", str(DEVICES), "--rounds", "3",
        "--port", str(front), "--console", str(console), "--superlink", str(superlink), "--interval", "1e9",
        "--deadline", str(PATIENCE),
    )  # fmt: skip
    devices = [Device(root / f"device{number}", root) for number in range(1, DEVICES + 1)]
    bad = [fault for device in devices for fault in before(device, LOOKS if device is devices[0] else ())]
    print(f"before consent: {sum(len(one.seen().tried) for one in devices)} addresses tried by {DEVICES} devices, "
          f"{sum(one.seen().sent.total() for one in devices)} bytes sent", flush=True)  # fmt: skip
    with _serving(server, root / "server.log"):
        for device in devices:
            join(device, call_program(server, "fleet", "enroll", device.home.name)["link"])
        with ExitStack() as stack:
            for device in devices:
                stack.enter_context(device.staying("fleet", "run", "--any-time"))
            for number in range(1, rounds + 1):
                shown = _newest(devices[0]) if number > 1 else b""
                told = call_program(server, "fleet", "round", "start", "--wait", "--timeout", str(PATIENCE))
                print(f"round {number}: {told['accepted']} of {told['asked']} devices, {told['verdict']}", flush=True)
                bad += _as_shown(shown, last_message(devices[0])) if shown else []
        bad += withdraw(devices[1])
    _upstreams(devices[2], root)
    for device in devices:
        wrong, words = compare(device)
        print(words, flush=True)
        bad += wrong
    return bad


def _as_shown(shown: bytes, sent: bytes) -> list[str]:
    """Preview and message have one length, and one header byte for byte; the noise behind it is fresh each time."""
    same = len(shown) == len(sent) and shown[: HEADER.size] == sent[: HEADER.size]
    print(f"preview {len(shown):,} bytes, message {len(sent):,}; first {HEADER.size} bytes equal: {same}", flush=True)
    return [] if same and shown != sent else ["the message is not what the preview showed"]


def _upstreams(device: Device, root: Path) -> None:
    """Ask two upstreams, one in clear and one under TLS."""
    folder = root / "far"
    with far(reply(GOOD)) as plain, far(reply(GOOD), tls=certificate(folder)) as secure:
        ask(device, plain.url, None)
        ask(device, secure.url, folder / "cert.pem")


@contextmanager
def _serving(server: Path, log: Path) -> Iterator[None]:
    """The fleet's server, not traced: it is not a device."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*program(server, "fleet", "up"), "--json"], stdout=out, stderr=subprocess.STDOUT, env={**os.environ}
        )
    try:
        _until(lambda: bool(call_program(server, "fleet", "status")["server"]["running"]))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise SystemExit("the server did not come up")
        time.sleep(1)


def main() -> int:
    """Print the comparison; 1 when anything disagrees."""
    parser = argparse.ArgumentParser(prog="python -m tools.egress", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    given = parser.parse_args()
    if shutil.which("strace") is None:
        raise SystemExit("needs strace")
    with tempfile.TemporaryDirectory(prefix="egress-") as folder:
        bad = session(given.keep or Path(folder), given.rounds)
    print("\n".join(bad) if bad else "sockets and ledger agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
