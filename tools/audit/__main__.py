"""The command: `python -m tools.audit [--seeds N] [--canaries M]`; 0 when the product passes and every mutant fails."""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from federation.budget import price
from federation.claim import claim
from federation.spec import RoundSpec
from federation.update import PrivateUpdate
from feedback.models import check_model, embedded_model, probe_pairs
from learner.accountant import epsilon
from learner.audit import AuditSpec, Finding, audit, audited_spec
from learner.base import load_base
from learner.noise import poisson_sample
from learner.private import SystemNoiseOptimizer
from store.records import Example, Message
from tools.audit import checks, mutants

SPEC = RoundSpec(
    clipping_norm=0.5, noise_multiplier=3.0, sampling_rate=1.0, steps=3, divisor=240.0, learning_rate=8.0, rank=2,
    alpha=4.0, seed_a=1, layers=1, quantum=0.01, max_norm=50.0,
)  # fmt: skip
ALONGSIDE = 16  # public examples that are backpropagated in the audited steps


def right_message(update: PrivateUpdate, _examples: int) -> bytes:
    """The product's bytes."""
    return update.encode()


@dataclass(frozen=True)
class Case:
    """One mutant, what catches it, and how."""

    name: str
    caught_by: str  # "audit" or the direct check's name
    check: Callable[[], list[str]]


def product_checks() -> dict[str, Callable[[], list[str]]]:
    """Every direct check on the product's own part."""
    right = SystemNoiseOptimizer
    return {
        "noise scale": lambda: checks.noise_scale(right),
        "sensitivity": lambda: checks.sensitivity(right),
        "sampling": lambda: checks.sampling(poisson_sample),
        "empty batches": lambda: checks.empty_batches(right),
        "neighbours": lambda: checks.neighbours(right),
        "accountant": lambda: checks.accountant(epsilon),
        "ledger": lambda: checks.ledger(price, SPEC),
        "message": lambda: checks.message(right_message, SPEC),
    }


def direct_cases() -> list[Case]:
    """Mutants that the direct checks catch."""
    return [
        Case("noise 0", "noise scale", lambda: checks.noise_scale(mutants.NoNoise)),
        Case("noise / 2", "noise scale", lambda: checks.noise_scale(mutants.HalfNoise)),
        Case("noise / 4", "noise scale", lambda: checks.noise_scale(mutants.QuarterNoise)),
        Case("no clipping", "sensitivity", lambda: checks.sensitivity(mutants.NoClipping)),
        Case("shuffled batches", "sampling", lambda: checks.sampling(mutants.shuffled)),
        Case("empty batch skipped", "empty batches", lambda: checks.empty_batches(mutants.EmptySkipped)),
        Case("divisor from the data", "neighbours", lambda: checks.neighbours(mutants.OwnDivisor)),
        Case("accountant not stepped", "ledger", lambda: checks.ledger(mutants.not_stepped, SPEC)),
        Case("gdp accountant", "accountant", lambda: checks.accountant(mutants.gdp)),
        Case("example count sent", "message", lambda: checks.message(mutants.with_count, SPEC)),
    ]


AUDITED: dict[str, type[SystemNoiseOptimizer]] = {
    "the product": SystemNoiseOptimizer,
    "noise 0": mutants.NoNoise,
    "noise / 4": mutants.QuarterNoise,
    "no clipping": mutants.NoClipping,
    "noise / 2": mutants.HalfNoise,
}
BEYOND = ("noise / 2",)  # an audit at epsilon 2 cannot catch it; shown for honesty


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--canaries", type=int, default=2000)
    arguments = parser.parse_args()
    green = _audits(AuditSpec(canaries=arguments.canaries), arguments.seeds)
    green &= _directly()
    print("all as it should be" if green else "NOT as it should be")
    return 0 if green else 1


def _audits(spec: AuditSpec, seeds: int) -> bool:
    """One-run audits of the product and of what an audit can catch."""
    base, mechanism = load_base(check_model(embedded_model())), audited_spec(spec)
    pairs = probe_pairs(embedded_model())[:ALONGSIDE]
    examples = [Example(messages=(Message("user", asked),), answer=said, rejected="") for asked, said in pairs]
    print(f"one-run audit: {spec.canaries} gradient canaries; {claim(spec.epsilon, spec.delta, 'correction')}")
    green = True
    for name, kind in AUDITED.items():
        begun = time.monotonic()
        found = [audit(base, spec, mechanism, examples, optimizer=kind) for _ in range(seeds)]
        refuted = sum(not one.holds for one in found)
        wanted = refuted == 0 if name == "the product" else name in BEYOND or refuted >= 0.9 * seeds
        green &= wanted
        seconds = time.monotonic() - begun
        print(f"  {name:24} {_bounds(found)}  refuted {refuted} of {seeds}  [{seconds:.0f} s]", flush=True)
    return green


def _bounds(found: list[Finding]) -> str:
    """Mean and range of the lower bounds."""
    lower = [one.lower for one in found]
    return f"lower bound {sum(lower) / len(lower):.2f} ({min(lower):.2f} to {max(lower):.2f})"


def _directly() -> bool:
    """Direct checks: the product passes all, each mutant fails its own."""
    green = True
    print("direct checks on the product")
    for name, check in product_checks().items():
        bad = check()
        green &= not bad
        print(f"  {name:24} {'passes' if not bad else 'FAILS: ' + bad[0]}", flush=True)
    print("direct checks on mutants")
    for case in direct_cases():
        bad = case.check()
        green &= bool(bad)
        print(f"  {case.name:24} {f'caught by {case.caught_by}: {bad[0]}' if bad else 'NOT CAUGHT'}", flush=True)
    return green


if __name__ == "__main__":
    sys.exit(main())
