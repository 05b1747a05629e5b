"""Whether an adapter loses the base's own skills, on pairs that judge and never train.

Three slices: exact answers to the pairs that the base's maker held back, exact answers to all, the mean value of all.
The first are skill, but come and go with any change; the others, known by heart, can only be lost.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from feedback.engine import Engine
from learner.gate import GatePolicy
from learner.judge import ItemScore, compare, compare_exact, score_known
from store.records import Example, Slice

_PART = 40  # pairs scored before looking whether more are worth it

Scores = dict[str, ItemScore]  # by example id

_LAST: WeakKeyDictionary[Engine, tuple[tuple[str, ...], Scores]] = WeakKeyDictionary()


def known_skills(engine: Engine, guard: Sequence[Example]) -> Scores:
    """Score the pairs under what `engine` serves; remembered until it is asked under something else."""
    stack, scores = _LAST.get(engine, ((), {}))
    scores = scores if stack == engine.stack else {}
    missing = [one for one in guard if one.id not in scores]
    scores |= zip((one.id for one in missing), score_known(engine, missing), strict=True)
    _LAST[engine] = (engine.stack, scores)
    return scores


def score_skills(engine: Engine, guard: Sequence[Example], known: Scores, gate: GatePolicy | None) -> Scores:
    """Score the pairs under what `engine` serves; with a gate only until even the best rest could not save a slice.

    Those that the base was least sure of come first: they are the ones that change, so that this shows early.
    """
    order = sorted(guard, key=lambda one: known[one.id].likelihood)
    scores: Scores = {}
    for first in range(0, len(order), _PART):
        part = order[first : first + _PART]
        scores |= zip((one.id for one in part), score_known(engine, part), strict=True)
        if gate and any(_hopeless(pairs, known, scores, gate) for pairs in (unseen(guard, gate), guard)):
            break
    return scores


def slices(guard: Sequence[Example], known: Scores, scores: Scores, gate: GatePolicy) -> tuple[Slice, ...]:
    """Compare before and after; a pair that was not scored counts as it was. None without pairs."""
    if not guard:
        return ()

    def sides(pairs: Sequence[Example]) -> tuple[list[ItemScore], list[ItemScore]]:
        return [known[one.id] for one in pairs], [scores.get(one.id, known[one.id]) for one in pairs]

    return (
        compare_exact("probe, unseen", *sides(unseen(guard, gate))),
        compare_exact("probe, exact", *sides(guard)),
        compare("probe", *sides(guard)),
    )


def unseen(guard: Sequence[Example], gate: GatePolicy) -> Sequence[Example]:
    """The part of the pairs that was held back from the base's own training."""
    return guard[: gate.first(len(guard))]


def _hopeless(pairs: Sequence[Example], known: Scores, scores: Scores, gate: GatePolicy) -> bool:
    """Whether too many exact answers are lost even if all that is not scored yet came right."""
    lost = sum(known[one.id].exact - (scores[one.id].exact if one.id in scores else True) for one in pairs)
    return len(pairs) >= gate.min_slice and 100 * lost > gate.max_fall * len(pairs)
