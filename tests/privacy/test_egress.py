"""Bytes on sockets, as strace sees them, against the ledger; `python -m tools.egress` runs a whole session of it."""

import shutil
import time
from pathlib import Path

import pytest

from federation.control import control
from store.egress import folded, messages, streams
from store.records import Egress
from tests.federation.live import Live
from tools import egress
from tools.capture import read

NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.mark.slow
@NEEDS_STRACE
def test_what_the_kernel_was_handed_is_what_the_ledger_says(live: Live, tmp_path: Path) -> None:
    """Joining, a SuperNode that connects, a look at releases, withdrawal: each byte is counted, none goes uncalled."""
    device = egress.Device(tmp_path / "device", tmp_path)
    assert egress.before(device, (("privacy", "preview"),)) == []
    egress.join(device, str(live.link("traced")))
    with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
        already = set(operator.online())
        with device.staying("fleet", "run", "--any-time"):
            end = time.monotonic() + 120
            while set(operator.online()) <= already and time.monotonic() < end:
                time.sleep(0.5)
            assert set(operator.online()) > already
    device.call("fleet", "receive", code=None)
    assert egress.withdraw(device, seconds=4) == []
    wrong, words = egress.compare(device)
    assert wrong == [], words
    assert device.seen().sent.total() > 10_000


def test_a_trace_is_read_across_threads_and_interrupted_calls(tmp_path: Path) -> None:
    """A call cut in two counts once; what goes to a port of the tree's own has not left; a lost peer is not hidden."""
    lines = [
        "10 listen(3<TCP:[127.0.0.1:9000]>, 128) = 0",
        "11 sendto(5<TCP:[127.0.0.1:9->127.0.0.1:80]>, \"x\", 70, 0, NULL, 0 <unfinished ...>",
        "10 write(1</tmp/out>, \"x\", 5) = 5",
        "11 <... sendto resumed>) = 70",
        "11 connect(6<TCP:[77]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}, 16) = 0",
        "11 connect(7<TCP:[78]>, {sa_family=AF_INET, sin_port=htons(9000), sin_addr=inet_addr(\"127.0.0.1\")}, 16) = 0",
        "12 write(7<TCP:[127.0.0.1:8->127.0.0.1:9000]>, \"x\", 4000) = 4000",
        "12 sendto(8<TCP:[127.0.0.1:9000->127.0.0.1:8]>, \"x\", 300, 0, NULL, 0) = 300",
        "12 sendto(9<UDP:[10.0.0.1:5->10.0.0.2:53]>, \"x\", 40, 0, NULL, 0) = 40",
        "12 writev(4<TCPv6:[[::1]:7->[::1]:443]>, [{iov_base=\"x\", iov_len=6}], 1) = 6",
        "12 write(4<TCP:[12345]>, \"x\", 9) = 9",
        "12 write(4<TCP:[12345]>, \"x\", 9) = -1 EAGAIN (Resource temporarily unavailable)",
    ]
    trace = tmp_path / "trace"
    trace.write_text("\n".join(lines))
    found = read(trace)
    assert found.sent == {"127.0.0.1:80": 70, "10.0.0.2:53": 40, "[::1]:443": 6, "unknown": 9}
    assert found.tried == {"127.0.0.1:80"}


def entry(purpose: str, size: int, time: float, destination: str = "there:1") -> Egress:
    """A line of the ledger."""
    return Egress(purpose=purpose, destination=destination, consent="c", size=size, payload=f"sha256:{size}", time=time)


def test_streams_are_a_line_a_day_and_messages_a_line_each() -> None:
    """Bytes add up per destination and day, in the order of the newest; messages are left as they are."""
    day = 86400.0
    entries = [
        entry("transport", 5, day), entry("share", 100, day), entry("transport", 7, day + 60),
        entry("transport", 9, day + 61, "elsewhere:1"), entry("share", 100, day + 62), entry("transport", 1, 3 * day),
    ]  # fmt: skip
    shown = [(one.purpose, one.size, one.time) for one in folded(entries)]
    assert shown == [
        ("share", 100, day), ("transport", 12, day + 60), ("transport", 9, day + 61), ("share", 100, day + 62),
        ("transport", 1, 3 * day),
    ]  # fmt: skip
    assert [one.size for one in messages(entries)] == [100, 100]
    assert sum(one.size for one in streams(entries)) == sum(one.size for one in folded(streams(entries))) == 22
