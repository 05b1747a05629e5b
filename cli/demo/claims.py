"""What the demo claims, checked against what it measured. Pure: a result in, claims out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from cli.demo.result import DemoResult, Exam, Round
from federation.claim import claim

MAX_FORGOTTEN = 1.0  # points of old skills an owner may lose
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement, whether it held, and the figures behind it."""

    words: str
    holds: bool
    evidence: str


def claims(result: DemoResult) -> list[Claim]:
    """Return every claim of the demo with its outcome."""
    return [*_learning(result), *_sharing(result), *_privacy(result)]


def _learning(result: DemoResult) -> list[Claim]:
    lives = result.lives
    gain, low, high = paired_gain([(life.before, life.personal) for life in lives])
    worse = [life.name for life in lives if life.personal.error > life.before.error]
    lost = max(life.before.skills - life.personal.skills for life in lives)
    adopted = sum(life.verdict.decision == "adopt" for life in lives)
    planted = [life.planted for life in lives if life.planted is not None]
    return [
        Claim(
            "Owners' requests never said before are answered better after learning",
            low > 0,
            f"{gain:.1f} points fewer errors over {len(lives)} owners, 95 % interval {low:.1f} to {high:.1f}; "
            f"{adopted} of {len(lives)} gates adopted",
        ),
        Claim("No owner is worse off", not worse, f"{len(worse)} of {len(lives)} with more errors than before"),
        Claim(
            "Old skills stay",
            lost <= MAX_FORGOTTEN,
            f"largest loss of any owner on the base's held-out requests: {max(lost, 0.0):.1f} points",
        ),
        Claim(
            "The planted bad adapter is refused by the gate",
            bool(planted) and all(verdict.decision == "reject" for verdict in planted),
            "; ".join(f"{verdict.decision}: {verdict.reason}" for verdict in planted) or "none was planted",
        ),
    ]


def _attendance(one: Round) -> str:
    """Who took part in a round, and whether anything came of it."""
    return f"round {one.number}: {one.accepted} of {one.asked}" + ("" if one.released else ", not released")


def _sharing(result: DemoResult) -> list[Claim]:
    rounds, newcomer = result.rounds, result.newcomer
    devices = len(result.lives)
    full = [one for one in rounds if one.accepted == one.asked == devices and one.released]
    gain, low, high = paired_gain([(newcomer.before, newcomer.reception.exam)])
    harmed = [
        life.name
        for life, received in zip(result.lives, result.received, strict=True)
        if received.verdict.decision == "adopt" and received.exam.error > life.personal.error
    ]
    return [
        Claim(
            "Three federated rounds over real Flower processes, every device in each",
            len(rounds) == len(full) == 3,
            ", ".join(_attendance(one) for one in rounds),
        ),
        Claim(
            "A device that never took part gets better from the shared adapter alone",
            newcomer.reception.verdict.decision == "adopt" and low > 0,
            f"error {newcomer.before.error:.1f} → {newcomer.reception.exam.error:.1f} % on unseen requests, "
            f"{gain:.1f} points fewer, 95 % interval {low:.1f} to {high:.1f}; "
            f"gate: {newcomer.reception.verdict.decision}, {newcomer.reception.verdict.reason}",
        ),
        Claim(
            "No owner who adopted the shared adapter is worse off for it",
            not harmed,
            f"{sum(one.verdict.decision == 'adopt' for one in result.received)} of {devices} adopted it, "
            f"{len(harmed)} of them with more errors",
        ),
    ]


def _privacy(result: DemoResult) -> list[Claim]:
    ledgers, scan = result.ledgers, result.scan
    sizes = set(chain.from_iterable(one.sizes for one in ledgers))
    sent = sum(len(one.sizes) for one in ledgers)
    digests = set(chain.from_iterable(one.digests for one in ledgers))
    most = max((one.epsilon for one in ledgers), default=0.0)
    taking_part = [one for one in ledgers if one.sizes]
    within = all(one.epsilon <= result.cap * (1 + 1e-3) and one.unit == "correction" for one in taking_part)
    return [
        Claim(
            "The privacy budget holds, and every device's ledger says so itself",
            bool(taking_part) and within and result.epsilon <= result.cap * (1 + 1e-3),
            f"{claim(most, result.delta, result.unit)}, cap {result.cap:g}; release says {result.epsilon:.2f}",
        ),
        Claim(
            "What left is numbers of one fixed size, each message paid for before it went",
            sizes == {result.update_size} and len(digests) == sent and all(one.spent_first for one in ledgers),
            f"{sent} messages of {result.update_size:,} bytes, {len(digests)} different digests",
        ),
        Claim(
            "No logged sentence can be read anywhere on disk",
            scan.hits == 0 and scan.control and scan.sentences > 0,
            f"{scan.hits} hits of {scan.sentences:,} sentences in {scan.files} files ({scan.size / 1e6:.1f} MB); "
            f"planted control {'found' if scan.control else 'NOT found'}",
        ),
        Claim(
            "Every store is whole",
            all(one.whole for one in ledgers),
            f"{sum(one.whole for one in ledgers)} of {len(ledgers)} chains verify",
        ),
    ]


def paired_gain(exams: Sequence[tuple[Exam, Exam]]) -> tuple[float, float, float]:
    """Return how many points the error fell over all exams pooled, with its paired-bootstrap 95 % interval."""
    pairs = [(a, b) for before, after in exams for a, b in zip(before.unseen, after.unseen, strict=True)]
    gains = np.array([float(after) - float(before) for before, after in pairs])
    rng = np.random.default_rng(0)
    means = gains[rng.integers(len(gains), size=(RESAMPLES, len(gains)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * float(gains.mean()), 100 * float(low), 100 * float(high)
