"""Whether an adapter loses the base's own skills, on pairs that judge and never train."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from feedback.engine import Engine
from learner.gate import GatePolicy
from learner.judge import ItemScore, compare, score_known
from store.records import Example, Slice

_PART = 40  # pairs scored before looking whether more are worth it
_STACKS = 2  # remembered of an engine: what the others are compared with, and the newest

Scores = dict[str, ItemScore]  # by example id

_KNOWN: WeakKeyDictionary[Engine, dict[tuple[str, ...], Scores]] = WeakKeyDictionary()


def known_skills(engine: Engine, guard: Sequence[Example]) -> Scores:
    """Score the pairs under what `engine` serves; remembered for the two stacks asked last."""
    known = _KNOWN.setdefault(engine, {})
    scores = known.pop(engine.stack, {})
    missing = [one for one in guard if one.id not in scores]
    scores |= zip((one.id for one in missing), score_known(engine, missing), strict=True)
    known[engine.stack] = scores
    while len(known) > _STACKS:
        del known[next(iter(known))]
    return scores


def score_skills(engine: Engine, guard: Sequence[Example], known: Scores, gate: GatePolicy | None) -> Scores:
    """Score the pairs under what `engine` serves; with a gate only until too much is lost.

    Those that the base was least sure of come first: they are the ones that change, and the others bring little back.
    """
    order = sorted(guard, key=lambda one: known[one.id].likelihood)
    for first in range(0, len(order), _PART):
        part = order[: first + _PART]
        scores = known_skills(engine, part)
        lost = sum(known[one.id].whole - scores[one.id].whole for one in part)
        if gate and len(guard) >= gate.min_slice and 100 * lost > gate.max_fall * len(guard):
            return {one.id: scores[one.id] for one in part}
    return known_skills(engine, guard)


def slices(guard: Sequence[Example], known: Scores, scores: Scores) -> tuple[Slice, ...]:
    """Compare whole answers and values; a pair that was not scored counts as it was. None without pairs.

    Whole answers by their probability, not by counting exact ones: of a few hundred pairs some dozen are near a tie,
    and which of those turn says little about others of the same kind.
    """
    before = [known[one.id] for one in guard]
    after = [scores.get(one.id, known[one.id]) for one in guard]
    whole = compare("probe, whole answers", before, after, lambda one: one.whole)
    return (whole, compare("probe", before, after)) if guard else ()
