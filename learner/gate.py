"""The gate's arithmetic: is the gain on held-out corrections real, and did nothing protected fall?

Pure: numbers in, ruling out; no model, no store, no clock. Scores are in [0, 1], reported in points of 0 to 100.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from store.records import HASH_TAG, Decision, Slice

Pair = tuple[float, float]  # score before, score after, of one held-out item
_CHUNK = 1000  # resamples drawn at a time


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What counts as proof; public."""

    min_evidence: int = 5  # distinct held-out requests below which nothing is decided
    target_evidence: int = 20  # cross-fitting stops once it has this many
    folds: int = 5
    groups: int = 2  # challengers trained at most: folds are judged together to save trainings
    guard: int = 240  # of the probe pairs, the first, judge and never train,
    guard_share: float = 0.2  # but no more of them than this
    confidence: float = 0.95
    resamples: int = 10_000
    max_fall: float = 1.0  # points a protected slice may lose
    min_slice: int = 20  # a smaller slice is shown and does not decide: one near-tie would be several points
    contrast: float = 3.0  # times what wrong answers gain, right ones must gain,
    exact: float = 25.0  # or be exact so much oftener, in points, at the interval's lower end
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """Whether held-out corrections were learned, or only the look of their answers.

    Attributes:
        exact: whether each answer was and is exactly the wanted one, 0 or 1.
        apart: what each right answer gained in likelihood, and what another item's answer gained in its place.
    """

    exact: Sequence[Pair]
    apart: Sequence[Pair]

    def specific(self, policy: GatePolicy) -> bool:
        """Right answers gained several times what wrong ones did, or many more of them are exact, proven.

        Answers that are nearly alike gain together, so that exact ones must be able to speak for themselves; a few come
        right when shuffled answers are learned.
        """
        told = [right - policy.contrast * wrong for right, wrong in self.apart]
        return not told or float(np.mean(told)) > 0 or bootstrap(self.exact, policy)[1] > policy.exact


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision and the numbers it rests on, in points."""

    decision: Decision
    reason: str
    gain: float
    lower: float
    upper: float
    evidence: int
    before: float = 0.0  # mean score of the evidence without the adapter; 0 when nothing was scored

    @property
    def held_out(self) -> tuple[Slice, ...]:
        """The level that the gain starts from and ends at, so that error can be followed over many runs."""
        if not self.before:
            return ()
        return (Slice(name="held-out", count=self.evidence, before=self.before, after=self.before + self.gain),)


def fold_of(request: str, policy: GatePolicy) -> int:
    """Return the lifelong fold of a request, by its hash."""
    return int(request.removeprefix(HASH_TAG)[:15], 16) % policy.folds


def fold_groups(requests: Sequence[str], policy: GatePolicy) -> list[frozenset[int]]:
    """Return the folds to hold out together, one group per challenger, the fullest first.

    A single fold with enough evidence is held out alone; otherwise folds are joined into at most `groups` groups of
    similar size.
    """
    sizes = Counter(fold_of(request, policy) for request in requests)
    folds = [fold for fold, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    if folds and sizes[folds[0]] >= policy.target_evidence:
        return [frozenset([fold]) for fold in folds]
    groups: list[set[int]] = [set() for _ in range(min(policy.groups, len(folds)))]
    for fold in folds:
        min(groups, key=lambda group: sum(sizes[one] for one in group)).add(fold)
    return [frozenset(group) for group in groups]


def bootstrap(pairs: Sequence[Pair], policy: GatePolicy) -> tuple[float, float, float]:
    """Return mean gain and its percentile-bootstrap interval over paired items, in points.

    Resamples items with replacement (Efron 1979); seeded, so the same evidence gives the same interval.
    """
    gains = np.array([after - before for before, after in pairs])
    rng = np.random.default_rng(policy.seed)
    sizes = [min(_CHUNK, policy.resamples - done) for done in range(0, policy.resamples, _CHUNK)]
    means = np.concatenate([gains[rng.integers(len(gains), size=(size, len(gains)))].mean(axis=1) for size in sizes])
    tail = (1 - policy.confidence) / 2
    lower, upper = np.quantile(means, [tail, 1 - tail])
    return 100 * float(gains.mean()), 100 * float(lower), 100 * float(upper)


def decide(
    pairs: Sequence[Pair], slices: Sequence[Slice], policy: GatePolicy, *, learned: Learned | None = None
) -> Ruling:
    """Rule on an adapter.

    A protected slice that fell is a rejection whatever the gain. Too little evidence is a `wait`; so is a gain that
    is not proven yet while there is less than the target evidence; otherwise only a proven gain is adopted. It must be
    specific, too: who learns shuffled answers makes all of them likelier.

    Args:
        learned: what tells whether it is; not asked where None.
    """
    gain, lower, upper = bootstrap(pairs, policy) if pairs else (0.0, 0.0, 0.0)

    def ruling(decision: Decision, reason: str) -> Ruling:
        before = 100 * float(np.mean([old for old, _ in pairs])) if pairs else 0.0
        return Ruling(decision, reason, gain, lower, upper, len(pairs), before)

    telling = [part for part in slices if part.count >= policy.min_slice]
    fallen = [part.name for part in telling if part.before - part.after > policy.max_fall]
    if fallen:
        return ruling("reject", f"would forget: {', '.join(fallen)}")
    if len(pairs) < policy.min_evidence:
        return ruling("wait", f"{len(pairs)} of {policy.min_evidence} different corrections needed as evidence")
    right = learned is None or learned.specific(policy)
    if lower > 0 and right:
        return ruling("adopt", "gain on held-out corrections is proven")
    if gain > 0 and len(pairs) < policy.target_evidence:
        return ruling("wait", "gain on held-out corrections is not proven yet")
    return ruling("reject", "no gain on held-out corrections" if right else "answers of other requests gain as well")
