"""Bytes on sockets, as strace sees them, against the ledger; `python -m tools.egress` looks at more."""

import shutil
from pathlib import Path

import pytest

from tools import egress


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_what_the_kernel_was_handed_is_what_the_ledger_says(tmp_path: Path) -> None:
    """Three connections through the door, and an attempt before consent that never reaches the network."""
    capture, ledger = egress.traced("door", tmp_path)
    ((target, size),) = ledger["transport"].items()
    assert capture.bytes_to(target) == size == 1 + 40_000 + 333


def test_a_trace_is_read_across_threads_and_interrupted_calls(tmp_path: Path) -> None:
    """A thread's bytes count for its program, a call cut in two counts once, another program's do not count."""
    lines = [
        '10 execve("/bin/python", ["python", "-m", "tools.egress"], 0x7f /* 3 vars */) = 0',
        "10 clone3({flags=CLONE_VM} => {parent_tid=[11]}, 88) = 11",
        "11 sendto(5<TCP:[127.0.0.1:9->127.0.0.1:80]>, \"x\", 70, 0, NULL, 0 <unfinished ...>",
        "10 write(1</tmp/out>, \"x\", 5) = 5",
        "11 <... sendto resumed>) = 70",
        "11 connect(6<TCP:[77]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}, 16) = 0",
        '12 execve("/bin/python", ["python", "-m", "somebody.else"], 0x7f /* 3 vars */) = 0',
        "12 sendto(5<TCP:[127.0.0.1:8->127.0.0.1:80]>, \"x\", 4000, 0, NULL, 0) = 4000",
    ]
    trace = tmp_path / "trace"
    trace.write_text("\n".join(lines))
    found = egress.read(trace)
    assert found.bytes_to("127.0.0.1:80") == 70
    assert found.tried == {"127.0.0.1:80"}
