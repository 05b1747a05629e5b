"""A device in a running fleet: keeps its SuperNode and its worker alive while the device may take part, and only then.

The SuperNode brings orders in and answers out and executes nothing; all it sends goes through the door that counts. The
worker answers with installed code. Flower refuses a SuperNode that comes back within a minute of being killed: it is
started again until it is let in.
"""

import base64
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from federation import links, pki
from federation.door import Door, address
from federation.keeper import Keeper
from federation.keeper import Tell as Told
from federation.membership import Membership
from federation.post import Post, request
from federation.processes import Child, free_ports, spawn
from store.base import StoreBase
from store.errors import NotInitialised
from store.files import private_folder
from store.locks import FileLock

LOOK = 1.0  # seconds between two looks

Ready = Callable[[], str]  # why the device may not take part now; empty when it may
Tell = Callable[[str, dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class Seat:
    """What a device needs to take part: its store's place and key, its membership, its model."""

    home: Path
    key: bytes
    place: Membership
    model: Path


def take_part(
    seat: Seat,
    store: StoreBase,
    *,
    going: Callable[[], bool],
    ready: Ready,
    tell: Tell,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Take part in rounds while `going` says so and the owner's consent stands.

    Args:
        seat: the device.
        store: its store; takes the ledger's entries of what leaves.
        going: asked every second.
        ready: the device's conditions, asked every second.
        tell: hears of what happens.
        look: called every second; for fetching releases.

    Raises:
        NotInitialised: the device joined a fleet that has no server to call.
        Locked: it takes part already.
    """
    if not seat.place.url:
        raise NotInitialised("this device knows no fleet server", hint="Join a fleet by its link.")
    scratch = seat.place.folder / "processes"
    private_folder(scratch)
    with (
        FileLock(seat.place.folder / "member.lock", "this device's part in the fleet"),
        Door.of(store, seat.place) as door,
    ):
        said = ""
        keeper = crew(seat, scratch, door, lambda name, what: tell("process", {"name": name, "what": what}))
        try:
            while going():
                reason = ready() if store.consent("share", seat.place.fleet) else "consent was withdrawn"
                if reason != said:
                    tell("conditions", {"ready": not reason, "reason": reason})
                    said = reason
                if reason:
                    keeper.close()
                else:
                    keeper.tend()
                look()
                time.sleep(LOOK)
        finally:
            keeper.close()


def crew(seat: Seat, scratch: Path, door: Door, told: Told) -> Keeper:
    """Return the keeper of SuperNode and worker, joined by a loopback port and a secret of this run."""
    (port,) = free_ports(1)
    secret = scratch / "superexec.secret"
    secret.unlink(missing_ok=True)
    pki.write_private(secret, secrets.token_bytes(pki.SUPEREXEC_SECRET_BYTES))
    post = Post(
        home=str(seat.home),
        key=base64.b64encode(seat.key).decode(),
        membership=str(seat.place.folder),
        address=f"127.0.0.1:{port}",
        secret=str(secret),
    )

    def node() -> Child:
        return links.supernode(
            "supernode",
            seat.place,
            address=address(seat.place.url),
            port=port,
            authority=seat.place.authority,
            secret=secret,
            scratch=scratch,
            door=door.port,
        )

    def worker() -> Child:
        command = [sys.executable, "-m", "federation.worker", str(os.getpid())]
        return spawn("worker", command, scratch, stdin=request(seat.model, [post]))

    return Keeper({"supernode": node, "worker": worker}, told)
