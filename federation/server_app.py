"""The Flower ServerApp: reads the plan from the operator's folder and runs its rounds over the Grid."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation import strategy
from federation.aggregate import Aggregate
from federation.leash import die_with_parent
from federation.mend import mender
from federation.plan import Plan, ServerFolder
from federation.probe import probe_set
from federation.protocol import Order
from federation.release import Release
from federation.server import HALTED, Collector, Operator
from federation.state import FleetState
from federation.tally import Tally
from federation.update import Expected
from store.errors import Locked, NetworkError


def main(grid: Grid, context: Context) -> None:
    """Run the plan whose path the run's config names; its folder holds keys, state and releases."""
    die_with_parent(os.getppid())  # without its executor a run is lost: the next one repeats the round
    path = Path(str(context.run_config["plan"]))
    folder, plan = ServerFolder(path.parent), Plan.read(path)
    state = folder.state()
    triggers = Path(plan.triggers) if plan.triggers else None
    with probe_set(Path(plan.model), plan.probe_items, triggers) as probes:
        operator = Operator.open(folder, plan, state, probes, mender(Path(plan.model), plan.spec))
        operator.run(str(context.run_id), collector(grid, state, plan))


def collector(grid: Grid, state: FleetState, plan: Plan) -> Collector:
    """Return a collector over `grid` that asks the enrolled devices that are online when a round begins."""

    def collect(
        order: Order, secret: bytes, release: Release, expected: Expected, key: Ed25519PrivateKey, into: Aggregate
    ) -> Tally:
        roster = state.admitted()
        nodes = {node: roster[node] for node in strategy.gather(grid, roster, plan.pace)}
        return strategy.collect(grid, nodes, order, secret, release, expected, key, plan.pace, into, halted=halted)

    def halted() -> bool:
        try:
            return bool(state.get(HALTED))
        except (NetworkError, Locked):  # a database that is away for a moment does not end a round
            return False

    return collect


app = ServerApp()
app.main()(main)
