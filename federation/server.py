"""The operator's rounds: from release to release, each one signed, scored and reported.

Knows Flower only as something that collects updates (`Collector`); the wire is in `federation.strategy`.
"""

import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import adapter
from federation import release as releases
from federation.aggregate import Aggregate, aggregate, statement
from federation.budget import together
from federation.mend import Mender
from federation.pki import load_signing_key, public_bytes
from federation.plan import Plan, ServerFolder
from federation.probe import Probes
from federation.protocol import Order
from federation.publishing import publish, sync
from federation.release import Manifest, Release
from federation.shrink import shrink
from federation.spec import RoundSpec
from federation.state import OPEN, FleetState, Round
from federation.tally import Tally
from federation.update import Expected
from learner.accountant import MechanismRun, epsilon
from learner.export import to_gguf
from learner.gate import GatePolicy
from learner.lora import LoraWeights, blend
from store.records import digest

NORM_SLACK = 1.0 + 1e-6  # for the rounding of a norm

HALTED = "halted"  # the switch that ends a round and lets none begin; any text but the empty one
SECRET_BYTES = 32

# order, its secret, the release to start from, what to expect, the key that signs, where admitted updates go -> counts
Collector = Callable[[Order, bytes, Release, Expected, Ed25519PrivateKey, Aggregate], Tally]
SHARES = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)  # of a round, tried in turn until no skill is lost; the probe set is public


@dataclass(frozen=True, slots=True)
class Operator:
    """One run of the server: where, what, with which key and probes.

    `mend` keeps old skills that a round would cost, with public pairs; None where there are none.
    """

    folder: ServerFolder
    plan: Plan
    key: Ed25519PrivateKey
    state: FleetState
    probes: Probes
    mend: Mender | None = None

    @classmethod
    def open(
        cls, folder: ServerFolder, plan: Plan, state: FleetState | None = None, probes: Probes | None = None,
        mend: Mender | None = None,
    ) -> "Operator":
        """Load the fleet's key.

        Args:
            state: the folder's own when omitted.
            probes: none when omitted.

        Raises:
            UsageError: the plan's rule does not fit its unit of privacy.
        """
        statement(plan.rule, plan.spec.unit)
        key = load_signing_key(folder.release_key)
        return cls(folder, plan, key, state or folder.state(), probes or (lambda _: {}), mend)

    def run(self, run: str, collect: Collector) -> Release:
        """Run the planned rounds, publish every release that holds up, report every round; return the newest release.

        A round that an earlier run of the server died in is repeated first, with the very same orders.

        Args:
            run: names this run in orders and ledgers.
            collect: asks the devices and hands over what they answer.
        """
        release = self._start()
        floor = self._asked(adapter.empty(self.plan.spec, self.plan.geometry))
        for attempt in range(self.plan.rounds):
            if self.state.get(HALTED):
                break
            release = self._round(self._open(f"{run}/{attempt}", release), release, floor, collect)
        return release

    def _round(self, entry: Round, release: Release, floor: Mapping[str, float], collect: Collector) -> Release:
        """One round: collect, conclude, report; return what is newest after it."""
        order, expected = self._order(entry.run, release), self._expected(release)
        into = aggregate(expected, self.plan.rule, trim=self.plan.trim, scratch=self.folder.root)
        try:
            tally = collect(order, entry.secret, release, expected, self.key, into)
            self._report(entry, tally, "collected", release)
            made, verdict, probed = self._conclude(release, into, floor)
            tally.used = into.used
        finally:
            into.close()
        self._report(entry, tally, verdict, made or release, probed)
        return made or release

    def _open(self, run: str, release: Release) -> Round:
        """The round to hold now, on file before the first order: what was asked is spent, whatever follows."""
        number = release.manifest.round + 1
        if left := self.state.unfinished():
            if left.number == number and left.report["spec"] == asdict(self.plan.spec):
                self.state.log("round repeated", run=left.run, round=number)
                return left
            self.state.report(left.run, "abandoned", {**left.report, "verdict": "abandoned"})
        begun = time.time()
        report = {
            "run": run,
            "round": number,
            "verdict": OPEN[0],
            "release": release.manifest.id,
            "rule": self.plan.rule,
            "spec": asdict(self.plan.spec),
            "begun": begun,
        }
        entry = Round(
            run=run,
            number=number,
            begun=begun,
            verdict=OPEN[0],
            secret=secrets.token_bytes(SECRET_BYTES),
            report=report,
        )
        self.state.begin(entry)
        return entry

    def _start(self) -> Release:
        """The newest release of this fleet, or a signed empty one as round 0."""
        if path := releases.newest(self.folder.releases):
            sync(self.folder, self.state, self.key)
            return releases.load(path, release_key=public_bytes(self.key), base=self.plan.base)
        data = self._bytes(adapter.empty(self.plan.spec, self.plan.geometry))
        return self._publish(self._manifest(data, 0.0), data)

    def _order(self, run: str, release: Release) -> Order:
        """The order of this round; nonce and device are filled in per node."""
        return Order(
            fleet=release.manifest.fleet,
            run=run,
            round=release.manifest.round + 1,
            nonce="",
            device="",
            release=release.manifest.id,
            deadline=time.time() + self.plan.pace.gather + self.plan.pace.deadline,
            spec=self.plan.spec,
        )

    def _expected(self, release: Release) -> Expected:
        """What every update of the round after `release` must say about itself."""
        order = adapter.layout(self.plan.geometry, self.plan.spec)
        return Expected(self.plan.base, release.manifest.id, release.manifest.round + 1, self.plan.spec, order)

    def _conclude(
        self, release: Release, into: Aggregate, floor: Mapping[str, float]
    ) -> tuple[Release | None, str, dict[str, float]]:
        """Make, score, sign and save the next release; None and the reason when there is none."""
        if self.state.get(HALTED):
            return None, HALTED, {}
        if into.count < self.plan.pace.quorum:
            return None, "no_quorum", {}
        change = into.result()
        if self.plan.denoise:
            change = shrink(change, self.plan.spec.deviation / math.sqrt(into.used))
        if self.mend is not None:
            change = self.mend.spare(change)
        before = adapter.open_release(release, self.plan.geometry, max_norm=release.manifest.max_norm)
        whole = adapter.moved(before, change)
        if self.mend is not None:
            whole = self.mend.mend(whole)
        for share in SHARES:
            weights = blend(before, whole, share)
            asked = self._asked(weights)
            if not (lost := self._lost(floor, asked, release.manifest.round + 1)):
                break
        else:
            return None, lost, _probed(floor, asked)
        data = self._bytes(weights)
        manifest = replace(
            self._manifest(data, adapter.norm(weights)),
            parent=release.manifest.id,
            round=release.manifest.round + 1,
            cohort=into.used,
            epsilon=epsilon([_mechanism(self.plan.spec)], self.plan.delta),
            epsilon_total=self._spent(),
            probe=_probed(floor, asked),
        )
        return self._publish(manifest, data), "released", _probed(floor, asked)

    def _publish(self, manifest: Manifest, data: bytes) -> Release:
        """Sign, save, and offer to devices."""
        made = releases.sign(manifest, data, self.key)
        publish(self.folder, self.state, made, self.key)
        return made

    def _manifest(self, data: bytes, norm: float) -> Manifest:
        """What is true of any release of this plan; lineage and cost as for the empty one."""
        return Manifest(
            fleet=releases.fleet_identity(public_bytes(self.key)),
            base=self.plan.base,
            parent=None,
            round=0,
            cohort=0,
            adapter=digest(data),
            size=len(data),
            max_norm=norm * NORM_SLACK,
            mechanism=self.plan.spec,
            epsilon=0.0,
            epsilon_total=0.0,
            delta=self.plan.delta,
            time=time.time(),
        )

    def _spent(self) -> float:
        """Epsilon of every round this fleet ever asked for, released or not."""
        specs = [RoundSpec.parse(entry.report["spec"]) for entry in self.state.rounds()]
        return together(specs, self.plan.delta)

    def _asked(self, weights: LoraWeights) -> dict[str, float]:
        """Points of `weights` on each of the operator's probes."""
        return self.probes(self._bytes(weights))

    def _lost(self, floor: Mapping[str, float], asked: Mapping[str, float], number: int) -> str:
        """The verdict on what must not be signed as release `number`, empty when nothing speaks against it.

        Of the skills' points the plan's tolerance may be lost, of whole answers what a device's gate lets go, since
        what loses more is adopted nowhere; that is spread over the rounds like the privacy budget: a late one has room.
        """
        lost = {name: points - asked[name] for name, points in floor.items()}
        part = min(1.0, number / self.plan.spread)
        limits = {"skills": self.plan.probe_tolerance, "whole": part * GatePolicy().max_fall}
        if any(lost.get(name, 0.0) > limit for name, limit in limits.items()):
            return "not_signed_off"
        if -lost.get("triggers", 0.0) > self.plan.trigger_tolerance:
            return "triggered"
        return ""

    def _bytes(self, weights: LoraWeights) -> bytes:
        """The adapter as it is signed and served."""
        return to_gguf(weights, self.plan.geometry, self.plan.base)

    def _report(
        self, entry: Round, tally: Tally, verdict: str, release: Release, probed: dict[str, float] | None = None
    ) -> None:
        """Put on file what became of a round, and in the log when it is over."""
        result = {"verdict": verdict, "release": release.manifest.id, "probe": probed or {}}
        self.state.report(entry.run, verdict, {**entry.report, **tally.figures(), **result})
        if verdict not in OPEN:
            self.state.log("round", run=entry.run, round=entry.number, **tally.figures(), **result)


def _mechanism(spec: RoundSpec) -> MechanismRun:
    """The accountant's view of one round."""
    return MechanismRun(spec.noise_multiplier, spec.sampling_rate, spec.steps)


def _probed(floor: Mapping[str, float], asked: Mapping[str, float]) -> dict[str, float]:
    """The probes' points as reports and manifests name them."""
    names = {
        "skills": ("base", "after"),
        "whole": ("whole_base", "whole_after"),
        "exact": ("exact_base", "exact_after"),
        "triggers": ("triggers_base", "triggers_after"),
    }
    return {
        name: points[probe]
        for probe, pair in names.items()
        if probe in asked
        for name, points in zip(pair, (floor, asked), strict=True)
    }
