"""A desk fleet: one SuperLink and a few SuperNodes on loopback, with TLS and node keys, up for one run and down again.

Every process has its own home and an environment made from nothing, with Flower's calls home switched off. Ctrl-C,
an error or the death of this process take all of them down.
"""

import base64
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation import links, membership, pki, repository
from federation import release as releases
from federation.control import Control, control
from federation.plan import Plan, ServerFolder
from federation.post import Post, request
from federation.processes import Child, free_ports, healthy, spawn, stop, wait_for
from federation.release import Release
from federation.state import OPEN, FleetState, Node
from store.errors import NetworkError
from store.paths import Home

START = 120.0  # seconds a process may take to come up on a busy machine
RUNNERS = 2  # worker processes; each holds the model once

Progress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


@dataclass(frozen=True, slots=True)
class DeskDevice:
    """A device of a desk fleet: its home, the key to its store, its membership folder."""

    name: str
    home: Home
    key: bytes = field(repr=False)
    membership: Path


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What a run brought: its round reports, the newest release, and where the time went."""

    reports: list[dict[str, Any]]
    release: Release
    seconds: dict[str, float]


def create_server(folder: Path, hosts: Sequence[str] = pki.LOOPBACK) -> bytes:
    """Make a fleet server's keys, certificates and empty repository in `folder`; return the release key's 32 bytes.

    Args:
        folder: must be empty or absent.
        hosts: names and addresses the certificate is good for.

    Raises:
        UsageError: there is a server already.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = ServerFolder(folder)
    key = pki.create_signing_key(server.release_key)
    repository.create(server, key)
    pki.create_authority(folder, hosts)
    pki.write_private(server.secret, secrets.token_bytes(pki.SUPEREXEC_SECRET_BYTES))
    return pki.public_bytes(key)


def run_fleet(
    server: ServerFolder,
    plan: Plan,
    devices: Sequence[DeskDevice],
    *,
    progress: Progress = lambda _what, _done, _total: None,
    runners: int = RUNNERS,
) -> FleetResult:
    """Bring the fleet up, run the plan's rounds with real Flower processes, take everything down.

    Args:
        server: made by `create_server`.
        plan: rounds, mechanism and pace.
        devices: each already joined (`membership.join`) and consented.
        progress: told of each phase.
        runners: worker processes to spread the devices over.

    Raises:
        NetworkError: a process did not come up or died; its log is named.
    """
    begun = time.monotonic()
    known = len(server.read_reports())
    plan.write(server.plan)
    with _superlink(server) as (address, children, scratch), control(address, server.authority) as operator:
        _devices(server, operator, plan, devices, address, children, scratch, runners)
        progress("start", 0, plan.rounds)
        run = operator.start(server.plan)
        started = time.monotonic() - begun
        _follow(server, operator, run, plan, children, known, progress)
        ran = time.monotonic() - begun - started
    done = server.read_reports()[known:]
    newest = releases.newest(server.releases)
    if newest is None:
        raise NetworkError("the fleet made no release", hint="Its logs are in the server's folder.")
    key = pki.public_bytes(pki.load_signing_key(server.release_key))
    seconds = {"start": started, "rounds": ran, "stop": time.monotonic() - begun - started - ran}
    return FleetResult(done, releases.load(newest, release_key=key, base=plan.base), seconds)


@contextmanager
def _superlink(server: ServerFolder) -> Iterator[tuple[str, list[Child], Path]]:
    """Run SuperLink and the executor of its server app; yield address, children and a scratch folder."""
    (port,) = free_ports(1)
    scratch = Path(tempfile.mkdtemp(prefix="fleet-", dir=server.root))
    children: list[Child] = []
    try:
        children.append(links.superlink(server, port, scratch))
        wait_for(healthy(port, server.authority), children, what="the SuperLink", seconds=START)
        children.append(links.superexec(server, port, scratch))
        yield f"127.0.0.1:{port}", children, scratch
    finally:
        stop(children[::-1])
        _keep_logs(scratch, server.logs)


def _devices(
    server: ServerFolder,
    operator: Control,
    plan: Plan,
    devices: Sequence[DeskDevice],
    address: str,
    children: list[Child],
    scratch: Path,
    runners: int,
) -> None:
    """Enroll what is new, start one SuperNode per device and the workers behind them."""
    posts, state = [], server.state()
    for device, port in zip(devices, free_ports(len(devices)), strict=True):
        place = membership.read(device.membership)
        _enroll(state, operator, device.name, place)
        secret = scratch / f"{device.name}.secret"
        pki.write_private(secret, secrets.token_bytes(pki.SUPEREXEC_SECRET_BYTES))
        children.append(
            links.supernode(
                f"node-{device.name}",
                place,
                address=address,
                port=port,
                authority=server.authority,
                secret=secret,
                scratch=scratch,
            )
        )
        posts.append(
            Post(
                home=str(device.home.root),
                key=base64.b64encode(device.key).decode(),
                membership=str(device.membership),
                address=f"127.0.0.1:{port}",
                secret=str(secret),
            )
        )
    for number in range(min(runners, len(posts))):
        share = request(Path(plan.model), posts[number::runners])
        command = [sys.executable, "-m", "federation.worker", str(os.getpid())]
        children.append(spawn(f"worker{number}", command, scratch, stdin=share))


def _enroll(state: FleetState, operator: Control, name: str, place: membership.Membership) -> None:
    """Register a device that is not yet enrolled: its node key with Flower, its signing key with us."""
    device = pki.public_bytes(place.signing_key()).hex()
    if any(node.device == device for node in state.nodes()):
        return
    node_id = operator.register(place.node_key.with_suffix(".pub").read_bytes(), name)
    state.enroll(Node(node_id=node_id, name=name, device=device))


def _follow(
    server: ServerFolder,
    operator: Control,
    run: int,
    plan: Plan,
    children: Sequence[Child],
    known: int,
    progress: Progress,
) -> None:
    """Wait for the run to end, telling of each round that does."""
    told = -1

    def finished() -> bool:
        nonlocal told
        done = sum(report["verdict"] not in OPEN for report in server.read_reports()[known:])
        if done != told:
            told = done
            progress("rounds", done, plan.rounds)
        return operator.state(run).startswith("finished")

    longest = plan.rounds * (plan.pace.gather + plan.pace.deadline) + START
    wait_for(finished, children, what="the federated run", seconds=longest, poll=0.5)
    if operator.state(run) != "finished:completed":
        raise NetworkError("the server app failed", hint="Its log is superexec.log in the server's folder.")


def _keep_logs(scratch: Path, logs: Path) -> None:
    """Move the logs out of the scratch folder and remove the rest."""
    logs.mkdir(exist_ok=True)
    for log in scratch.glob("*.log"):
        log.replace(logs / log.name)
    shutil.rmtree(scratch, ignore_errors=True)
