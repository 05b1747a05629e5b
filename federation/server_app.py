"""The Flower ServerApp: reads the plan from the operator's folder and runs its rounds over the Grid."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation import registry, strategy
from federation.aggregate import UniformMean
from federation.plan import Plan, ServerFolder
from federation.probe import probe_set
from federation.protocol import Order
from federation.release import Release
from federation.server import Collector, Operator
from federation.tally import Tally
from federation.update import Expected


def main(grid: Grid, context: Context) -> None:
    """Run the plan whose path the run's config names; its folder holds keys, registry and releases."""
    path = Path(str(context.run_config["plan"]))
    folder, plan = ServerFolder(path.parent), Plan.read(path)
    with probe_set(Path(plan.model), plan.probe_items) as probe:
        Operator.open(folder, plan, probe).run(str(context.run_id), collector(grid, folder, plan))


def collector(grid: Grid, folder: ServerFolder, plan: Plan) -> Collector:
    """Return a collector over `grid` that asks the enrolled devices that are online when a round begins."""

    def collect(
        order: Order, release: Release, expected: Expected, key: Ed25519PrivateKey
    ) -> tuple[UniformMean, Tally]:
        roster = registry.admitted(folder.registry)
        nodes = {node: roster[node] for node in strategy.gather(grid, roster, plan.pace)}
        return strategy.collect(grid, nodes, order, release, expected, key, plan.pace)

    return collect


app = ServerApp()
app.main()(main)
