"""`corrigible privacy audit`: what a run gives away, measured on this machine, beside what is claimed."""

import sys
from dataclasses import asdict

import click

from cli.base import Command
from cli.output import Report, facts, say
from cli.session import Session
from federation.claim import claim
from store.errors import IntegrityError

ALONGSIDE = 16  # public examples that are backpropagated in the audited run
MOST = 100_000  # canaries


@click.command(
    cls=Command,
    examples=["corrigible privacy audit", "corrigible privacy audit --runs 3 --json"],
    exits=[13],
)
@click.option("--epsilon", type=click.FloatRange(0.1, 20), default=2.0, show_default=True, help="Claim to audit.")
@click.option("--delta", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=1e-5, show_default=True)
@click.option("--canaries", type=click.IntRange(20, MOST), default=2000, show_default=True)
@click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True, help="Audits, each on its own.")
@click.pass_obj
def audit(session: Session, epsilon: float, delta: float, canaries: int, runs: int) -> Report:
    """Try to tell from a private run which of many canaries took part; print what that proves.

    Uses the program's own private training on the configured model and nothing of yours. Exit 13 when the claim is
    refuted. An audit can refute a claim, never prove it; at a claim of 8 it would not even notice missing noise.
    """
    from feedback.models import probe_pairs
    from learner.audit import AuditSpec, audit, audited_spec
    from learner.base import load_base
    from store.records import Example, Message

    model = session.model()
    base = load_base(model)
    spec = AuditSpec(epsilon=epsilon, delta=delta, canaries=canaries)
    mechanism = audited_spec(spec)
    pairs = probe_pairs(model.path)[:ALONGSIDE]
    examples = [Example(messages=(Message("user", asked),), answer=said, rejected="") for asked, said in pairs]
    found = []
    for number in range(runs):
        if sys.stderr.isatty():
            say(f"Audit {number + 1} of {runs} …")
        found.append(audit(base, spec, mechanism, examples))
    worst = max(found, key=lambda one: one.lower)
    if not worst.holds:
        raise IntegrityError(
            f"Refuted: {claim(epsilon, delta, 'correction')}. At least {worst.lower:.2f} leaked.",
            hint="Do not share from this installation, and report it.",
            code="audit",
        )
    data = {**asdict(worst), "unit": "correction", "runs": runs, "noise_multiplier": mechanism.noise_multiplier}
    rows = {
        "claimed": claim(epsilon, delta, "correction"),
        "measured": f"at least {worst.lower:.2f}, at {worst.confidence:.0%} confidence: {worst.right} of "
        f"{worst.guesses} guesses right" + (f"; the highest of {runs} audits" if runs > 1 else ""),
        "power": f"guesses that were all right would have proved {worst.ceiling:.2f}",
        "canaries": f"{canaries} gradients in one coordinate each, through the program's own sampling, clipping, "
        "noise and step",
    }
    return Report(data, lambda: facts(rows))
