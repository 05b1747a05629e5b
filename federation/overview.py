"""What an operator sees of a fleet, gathered once for the page, the command line and the metrics' readers."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from federation import release as releases
from federation.budget import together
from federation.charter import Charter
from federation.control import control
from federation.pki import load_signing_key, public_bytes
from federation.plan import Plan, ServerFolder
from federation.processes import healthy
from federation.release import Manifest, fleet_identity
from federation.server import HALTED
from federation.spec import RoundSpec
from federation.state import FleetState, Node, ReleaseRow
from store.errors import IntegrityError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """One release: what its manifest says and how far it is out."""

    id: str
    round: int
    parent: str | None
    cohort: int
    epsilon: float
    epsilon_total: float
    status: str
    rollout: int  # percent
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A fleet's public figures."""

    fleet: str
    base: str
    delta: float
    unit: str
    epsilon_total: float  # of all rounds that were asked for, released or not
    halted: bool
    enrolled: int
    revoked: int
    rounds: list[dict[str, Any]]  # reports, oldest first
    rejects: dict[str, int]  # over all rounds, by reason
    releases: list[ReleaseView]  # oldest first
    audit: int  # entries
    audit_whole: bool

    def figures(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def overview(folder: ServerFolder, state: FleetState) -> Overview:
    """Gather the figures of the fleet in `folder`."""
    plan = Plan.read(folder.plan)
    key = public_bytes(load_signing_key(folder.release_key))
    nodes = state.nodes()
    reports = [dict(entry.report) | {"verdict": entry.verdict} for entry in state.rounds()]
    rejects: Counter[str] = Counter()
    for report in reports:
        rejects.update(dict(report.get("rejected", {})))
    try:
        audit, whole = state.verify(), True
    except IntegrityError:
        audit, whole = len(state.events()), False
    return Overview(
        fleet=fleet_identity(key),
        base=plan.base,
        delta=plan.delta,
        unit=plan.spec.unit,
        epsilon_total=together([RoundSpec.parse(report["spec"]) for report in reports], plan.delta),
        halted=bool(state.get(HALTED)),
        enrolled=sum(not node.revoked for node in nodes),
        revoked=sum(node.revoked for node in nodes),
        rounds=reports,
        rejects=dict(sorted(rejects.items())),
        releases=[_view(manifest_of(folder, row, key, plan.base), row) for row in state.releases()],
        audit=audit,
        audit_whole=whole,
    )


def manifest_of(folder: ServerFolder, row: ReleaseRow, release_key: bytes, base: str) -> Manifest:
    """Return the verified manifest of a release on file."""
    path = folder.releases / f"{row.number:05d}.json"
    return releases.load(path, release_key=release_key, base=base).manifest


def _view(manifest: Manifest, row: ReleaseRow) -> ReleaseView:
    """A release as it is shown."""
    return ReleaseView(
        id=manifest.id,
        round=manifest.round,
        parent=manifest.parent,
        cohort=manifest.cohort,
        epsilon=manifest.epsilon,
        epsilon_total=manifest.epsilon_total,
        status=row.status,
        rollout=row.percent,
        time=manifest.time,
    )


def online(folder: ServerFolder) -> set[int] | None:
    """Return the ids of the devices that are connected now; None when the server does not run."""
    charter = Charter.read(folder.charter)
    if not healthy(charter.superlink, folder.authority)():
        return None
    with control(f"127.0.0.1:{charter.superlink}", folder.authority) as operator:
        return operator.online()


def one_node(state: FleetState, name: str) -> Node:
    """Return the device whose name, or the beginning of whose key, is `name`.

    Raises:
        UsageError: none, or more than one, fits.
    """
    found = [node for node in state.nodes() if node.name == name or (len(name) >= 6 and node.device.startswith(name))]
    if len(found) != 1:
        raise UsageError(f"{len(found)} devices fit {name!r}.", hint="`corrigible fleet nodes` lists them.")
    return found[0]
