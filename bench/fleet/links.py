"""A round of light devices over a real server: front, SuperLink, executor, server app; what it costs the SuperLink."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from bench.fleet.light import LightDevice, Polls
from federation import caller
from federation.control import control
from federation.pki import load_signing_key, public_bytes
from federation.state import Node
from tests.federation.live import Live, serving, standard

IDLE = 3  # polls of each device before and during which nothing happens
PATIENCE = 400.0  # seconds for the round


def light_round(folder: Path, count: int, every: float) -> dict[str, object]:
    """Hold one round with `count` light devices that look every `every` seconds on average."""
    plan = standard(count)
    plan = replace(plan, pace=replace(plan.pace, gather=10.0, deadline=PATIENCE, quorum=3), probe_items=0)
    with (
        serving(folder, plan) as live,
        caller.call(live.charter.url, live.folder.authority.read_bytes(), None) as client,
    ):
        asked: Counter[str] = Counter()
        fleet = public_bytes(load_signing_key(live.folder.release_key))
        devices = [LightDevice(client, plan, fleet, asked) for _ in range(count)]
        link = _process("flower-superlink")
        with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
            for number, device in enumerate(devices):
                node = operator.register(device.ssh_key, f"light {number}")
                key = public_bytes(device.key).hex()
                live.folder.state().enroll(Node(node_id=node, name=f"light {number}", device=key))
                device.activate()
            asked.clear()
            polls = Polls(devices, every)
            try:
                with _spent(link) as idle:
                    time.sleep(IDLE * every)
                idle_asked = asked.total()
                asked.clear()
                begun = time.monotonic()
                with _spent(link) as busy:
                    run = operator.start(live.folder.plan)
                    while not operator.state(run).startswith("finished") and time.monotonic() < begun + PATIENCE:
                        live.server.keeper.tend()
                        time.sleep(1)
            finally:
                polls.close()
        return _figures(live, count, every, idle_asked, idle, asked, busy, polls, time.monotonic() - begun)


def _figures(
    live: Live, count: int, every: float, idle_asked: int, idle: list[float], asked: Counter[str], busy: list[float],
    polls: Polls, seconds: float,
) -> dict[str, object]:  # fmt: skip
    """What to print."""
    report = live.folder.read_reports()[-1]
    return {
        "devices": count,
        "poll_seconds": every,
        "idle": {"requests": idle_asked, "superlink_ms_each": round(1000 * idle[0] / idle_asked, 1)},
        "round": {
            name: report.get(name) for name in ("verdict", "asked", "accepted", "rejected", "missing", "seconds")
        },
        "requests": dict(asked),
        "failed": dict(polls.failed),
        "wall_seconds": round(seconds),
        "superlink_seconds": round(busy[0], 1),
    }


def _process(name: str) -> psutil.Process:
    """The child of this process with that program."""
    return next(p for p in psutil.Process().children(recursive=True) if name in " ".join(p.cmdline()))


@contextmanager
def _spent(process: psutil.Process) -> Iterator[list[float]]:
    """CPU seconds the process uses meanwhile, as the list's only item once it is over."""
    found: list[float] = []
    before = sum(process.cpu_times()[:2])
    yield found
    found.append(sum(process.cpu_times()[:2]) - before)
