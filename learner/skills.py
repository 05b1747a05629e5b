"""Whether an adapter loses the base's own skills, on pairs that judge and never train."""

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
    """Score the pairs under what `engine` serves; with a gate only until even the best rest could not save them.

    Those that the base was least sure of come first: they are the ones that change, so that this shows early.
    """
    order = sorted(guard, key=lambda one: known[one.id].likelihood)
    scores: Scores = {}
    for first in range(0, len(order), _PART):
        part = order[first : first + _PART]
        scores |= zip((one.id for one in part), score_known(engine, part), strict=True)
        lost = sum(known[one.id].exact - (scores[one.id].exact if one.id in scores else True) for one in guard)
        if gate and len(guard) >= gate.min_slice and 100 * lost > gate.max_fall * len(guard):
            break
    return scores


def slices(guard: Sequence[Example], known: Scores, scores: Scores) -> tuple[Slice, ...]:
    """Compare exact answers and values; a pair that was not scored counts as it was. None without pairs."""
    before = [known[one.id] for one in guard]
    after = [scores.get(one.id, known[one.id]) for one in guard]
    return (compare_exact("probe, exact", before, after), compare("probe", before, after)) if guard else ()
