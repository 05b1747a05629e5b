"""What programs handed to the kernel's sockets, as strace saw it: bytes by peer, and every address that was tried."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "connect,listen,sendto,sendmsg,sendmmsg,sendfile,splice,write,writev"
_LINE = re.compile(r"^(\d+) +(.*)$")
_SENT = re.compile(r"^(?:send\w+|write|writev|splice)\(\d+<(?:TCP|UDP|RAW)(?:v6)?:\[(.*?)\]>.* = (\d+)$")
_LISTEN = re.compile(r"^listen\(\d+<TCP(?:v6)?:\[(.*?)\]>.* = 0$")
_CONNECT = re.compile(r"^connect\(.*sin6?_port=htons\((\d+)\).*(?:inet_addr|inet_pton)\((?:AF_INET6, )?\"([^\"]+)\"")


@dataclass
class Capture:
    """One process tree's traffic, without what its members said to each other.

    Bytes to or from a port that the tree itself listens on have not left it: a proxy's, a gateway's, a worker's.
    """

    sent: Counter[str] = field(default_factory=Counter)  # peer -> bytes; "unknown" where strace could not tell
    tried: set[str] = field(default_factory=set)  # addresses connected to

    def __add__(self, other: "Capture") -> "Capture":
        """Both together."""
        return Capture(self.sent + other.sent, self.tried | other.tried)


def under(trace: Path) -> list[str]:
    """Return the words that, before a command, have it traced into `trace`."""
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-s", "16", "-e", f"trace={CALLS}", "-o", str(trace)]


def read(trace: Path) -> Capture:
    """Add up one trace."""
    found, own, pairs = Capture(), set[str](), Counter[str]()
    for call in _calls(trace.read_text(errors="replace").splitlines()):
        if listening := _LISTEN.match(call):
            own.add(_port(listening[1]))
        elif told := _SENT.match(call):
            pairs[told[1]] += int(told[2])
        elif tried := _CONNECT.match(call):
            found.tried.add(f"{tried[2]}:{tried[1]}")
    for pair, size in pairs.items():
        local, arrow, peer = pair.partition("->")
        if not arrow:
            found.sent["unknown"] += size
        elif not {_port(local), _port(peer)} & own:
            found.sent[peer] += size
    found.tried = {address for address in found.tried if _port(address) not in own}
    return found


def _calls(lines: Iterable[str]) -> Iterator[str]:
    """Whole calls; one that another thread cut in two is put together."""
    halves: dict[str, str] = {}
    for line in lines:
        if match := _LINE.match(line):
            pid, call = match[1], match[2]
            if call.endswith("<unfinished ...>"):
                halves[pid] = call.removesuffix("<unfinished ...>")
            elif call.startswith("<... "):
                yield halves.pop(pid, "") + call.partition("resumed>")[2]
            else:
                yield call


def _port(address: str) -> str:
    return address.rpartition(":")[2]
