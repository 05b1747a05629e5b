"""The demo's fleet: eight devices join, agree to share, and run rounds over real Flower processes on loopback."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.demo.life import Seat
from cli.demo.result import Round
from federation import adapter, membership
from federation.deploy import DeskDevice, Progress, create_server, run_fleet
from federation.pki import load_signing_key, public_bytes
from federation.plan import ServerFolder
from federation.standard import standard_plan
from federation.update import Expected
from feedback.models import ModelFile
from learner.base import load_base
from store.keys import Keys, unlock
from store.records import Consent
from store.store import Store

ROUNDS = 3
EPSILON = 8.0  # for all rounds together, per correction, at the plan's delta


@dataclass(frozen=True, slots=True)
class Member:
    """An owner's device in the fleet: where its membership lies and the key to its store."""

    seat: Seat
    folder: Path
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """What the rounds brought: reports, the newest release as it travels, and what it says about itself."""

    rounds: tuple[Round, ...]
    fleet_key: bytes  # public
    envelope: bytes  # signed manifest
    adapter: bytes = field(repr=False)
    release: str  # id
    epsilon: float
    delta: float
    unit: str
    update_size: int  # bytes of every update, whatever the data


def join(server: Path, seats: Sequence[Seat], model: ModelFile) -> tuple[bytes, list[Member]]:
    """Make the server's keys; let every device pin them, and every owner agree to share with this fleet."""
    fleet_key = create_server(server)
    return fleet_key, [_member(seat, fleet_key, model) for seat in seats]


def run_rounds(server: Path, members: Sequence[Member], model: ModelFile, progress: Progress) -> FleetRun:
    """Run the federated rounds over real Flower processes and return what they made."""
    geometry = load_base(model, hold="blocks").geometry
    plan = standard_plan(model, geometry, rounds=ROUNDS, devices=len(members), epsilon=EPSILON)
    devices = [DeskDevice(one.seat.owner.name.lower(), one.seat.home, one.key, one.folder) for one in members]
    folder = ServerFolder(server)
    result = run_fleet(folder, plan, devices, progress=progress)
    release, manifest = result.release, result.release.manifest
    layout = adapter.layout(geometry, plan.spec)
    return FleetRun(
        rounds=tuple(map(_round, result.reports)),
        fleet_key=public_bytes(load_signing_key(folder.release_key)),
        envelope=release.envelope,
        adapter=release.adapter,
        release=manifest.id,
        epsilon=manifest.epsilon_total,
        delta=manifest.delta,
        unit=manifest.mechanism.unit,
        update_size=Expected(plan.base, manifest.id, manifest.round, plan.spec, layout).size,
    )


def keys_of(seat: Seat) -> bytes:
    """Unlock a seat's store as its owner would, and return the data key."""
    return unlock(seat.home, passphrase=lambda: seat.passphrase).export()


def _member(seat: Seat, fleet_key: bytes, model: ModelFile) -> Member:
    key = keys_of(seat)
    folder = seat.membership
    place = membership.join(folder, release_key=fleet_key, base=model.digest)
    terms = "one noised, clipped block of numbers of fixed size in each round; never text"
    with Store.open(seat.home, Keys.from_bytes(key)) as store:
        now = time.time()
        store.add(Consent(purpose="share", granted=True, destination=place.fleet, terms=terms, time=now))
    return Member(seat, folder, key)


def _round(report: dict[str, Any]) -> Round:
    return Round(
        number=report["round"],
        asked=report["asked"],
        accepted=report["accepted"],
        bytes_in=report["bytes_in"],
        seconds=report["seconds"],
        released=report["verdict"] == "released",
    )
