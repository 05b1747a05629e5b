"""Challengers: adapters trained without part of the corrections, to prove the recipe on what they have not seen.

Works on one `Run` in memory; writes nothing. The engine serves the old stack again after every function here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from feedback.engine import Engine
from learner.base import Base
from learner.export import to_gguf
from learner.gate import GatePolicy, Learned, Pair, Ruling, decide, fold_groups, fold_of
from learner.journal import Journal
from learner.judge import ItemScore, Stack, compare, score_corrections, score_known, serving
from learner.lora import LoraWeights
from learner.material import Material, Served
from learner.objectives import Reference
from learner.policy import LearnPolicy, Progress
from learner.regmean import Moments
from learner.skills import known_skills, score_skills, slices
from learner.teach import Taught, teach
from store.records import Example, Slice, digest


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same during one learning run."""

    engine: Engine
    base: Base
    now: Served
    material: Material
    policy: LearnPolicy
    start: LoraWeights  # of the personal adapter
    under: LoraWeights | None  # the shared adapter
    kept: Moments | None = None  # of what the base's own skills send through it
    progress: Progress | None = None
    journal: Journal = field(default_factory=Journal)
    reference: Reference = field(default_factory=Reference)
    known: dict[str, ItemScore] = field(default_factory=dict)  # by example id, under what serves now


@dataclass(frozen=True, slots=True)
class Checked:
    """Protected slices and single answers, before and after."""

    slices: tuple[Slice, ...] = ()
    fixed: tuple[str, ...] = ()  # ids of examples
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run: the ruling, and the adapter it is about where one was made."""

    ruling: Ruling
    data: bytes
    checked: Checked


@dataclass(frozen=True, slots=True)
class _Challenger:
    """An adapter that has not seen `held_out`; everything else it may have."""

    taught: Taught
    held_out: tuple[Example, ...]


def contest(run: Run) -> Outcome:
    """Cross-fit, and rule on the adapter that would serve.

    Goes through the policy's restraints, from the loosest to the tightest, until that adapter loses nothing protected.
    What challengers, held alike, make of what they have not seen is then the evidence; it has no part in the choice.
    """
    gate = run.policy.gate
    challengers = _challengers(run)
    if not challengers:  # all requests fell into one group: nothing would be left to train on
        return Outcome(decide([], (), gate), b"", Checked())
    final = _taught(run, run.material, "final")
    restraint, outcome = loosest(partial(_bytes, run, final), run.engine, run.now, run.material, run.policy, run.known)
    if outcome.ruling.decision == "reject":
        return outcome
    pairs, learned = _evidence(run, challengers, restraint)
    return replace(outcome, ruling=decide(pairs, outcome.checked.slices, gate, learned=learned))


def loosest(
    make: Callable[[float], bytes], engine: Engine, now: Served, material: Material, policy: LearnPolicy,
    known: dict[str, ItemScore] | None = None,
) -> tuple[float, Outcome]:
    """Hold an adapter as loosely as loses nothing protected; the restraint, and the last one tried where none does.

    Args:
        make: restraint to the personal adapter's GGUF bytes.
        known: see `check`.
    """
    known = {} if known is None else known
    restraint, outcome = 0.0, Outcome(decide([], (), policy.gate), b"", Checked())
    for restraint in policy.restraints:
        data = make(restraint)
        after = now.with_adapter("personal", digest(data), data)
        checked = check(engine, now, after, material, policy, known, brief=True)
        outcome = Outcome(decide([], checked.slices, policy.gate), data, checked)
        if outcome.ruling.decision != "reject":
            break
    return restraint, outcome


def evidence(
    engine: Engine, examples: Sequence[Example], before: Stack, after: Stack, *, specific: bool = True
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Score held-out corrections under both stacks: values, exact answers, and gains of right and wrong answers.

    Args:
        specific: whether to score wrong answers at all.
    """
    others = enumerate(examples if specific else ())
    wrong = {at: other for at, one in others if (other := _another(one, examples, at))}
    with serving(engine, before, before):
        old, old_wrong = score_corrections(engine, examples), score_known(engine, list(wrong.values()))
        engine.set_stack(after)
        new, new_wrong = score_corrections(engine, examples), score_known(engine, list(wrong.values()))
    both = list(zip(old, new, strict=True))
    gains = [two.likelihood - one.likelihood for one, two in both]
    wrong_gains = [two.likelihood - one.likelihood for one, two in zip(old_wrong, new_wrong, strict=True)]
    return (
        [(one.value, two.value) for one, two in both],
        [(float(one.exact), float(two.exact)) for one, two in both],
        list(zip((gains[at] for at in wrong), wrong_gains, strict=True)),
    )


def _another(one: Example, examples: Sequence[Example], at: int) -> Example | None:
    """The request of `one`, which stands at `at`, with the next answer that differs; None where all are the same."""
    others = (*examples[at + 1 :], *examples[:at])
    return next((replace(one, answer=other.answer) for other in others if other.answer != one.answer), None)


def check(
    engine: Engine, now: Served, after: Stack, material: Material, policy: LearnPolicy,
    known: dict[str, ItemScore] | None = None, *, brief: bool = False,
) -> Checked:
    """Score what must not be lost, before and after.

    The owner's answers are compared with what serves now; the base's own skills with the base and the shared adapter
    alone, so that they cannot be lost a point at a time.

    Args:
        known: scores of the owner's answers before, by example id; what is missing is measured and added.
        brief: stop as soon as the base's own skills have fallen too far; pairs not asked count as they were, and the
            owner's answers are left out.
    """
    size = policy.slice_size
    known = {} if known is None else known
    guard = material.guard
    groups = {
        "own answers": (*material.approved[-size:], *material.earlier[-size:]),
        "fresh corrections": material.fresh[-size:],
    }
    own = [example for examples in groups.values() for example in examples]
    with serving(engine, now.stack, now.stack):
        _remember(engine, own, known)
        engine.set_stack([now.shared] if now.shared else [])
        skills = known_skills(engine, guard)
        engine.set_stack(after)
        scores = score_skills(engine, guard, skills, policy.gate if brief else None)
        found = slices(guard, skills, scores)
        if len(scores) < len({one.id for one in guard}):
            return Checked(found)
        new = dict(zip((one.id for one in own), score_known(engine, own), strict=True))
    found += tuple(
        compare(name, [known[one.id] for one in examples], [new[one.id] for one in examples])
        for name, examples in groups.items()
        if examples
    )
    fixed = tuple(id for id in new if new[id].exact and not known[id].exact)
    return Checked(found, fixed, tuple(id for id in new if known[id].exact and not new[id].exact))


def _remember(engine: Engine, examples: Sequence[Example], known: dict[str, ItemScore]) -> None:
    """Score what is not yet known under what the engine serves."""
    missing = [example for example in examples if example.id not in known]
    known.update(zip((one.id for one in missing), score_known(engine, missing), strict=True))


def _challengers(run: Run) -> list[_Challenger]:
    """Train one challenger per group of folds until the target evidence is held out."""
    gate, material = run.policy.gate, run.material
    made: list[_Challenger] = []
    for folds in fold_groups([one.request for one in material.fresh], gate):
        outside = Material(
            fresh=_outside(material.fresh, folds, gate), earlier=_outside(material.earlier, folds, gate),
            approved=material.approved, probe=material.probe, guard=material.guard,
        )
        held_out = tuple(one for one in material.fresh if one not in outside.fresh)
        if outside.fresh:
            made.append(_Challenger(_taught(run, outside, "challenger", len(made)), held_out))
        if sum(len(one.held_out) for one in made) >= gate.target_evidence:
            break
    return made


def _outside(examples: Sequence[Example], folds: frozenset[int], gate: GatePolicy) -> tuple[Example, ...]:
    """Examples whose fold is not held out."""
    return tuple(one for one in examples if fold_of(one.request, gate) not in folds)


def _evidence(run: Run, challengers: Sequence[_Challenger], restraint: float) -> tuple[list[Pair], Learned]:
    """What every challenger makes of what it has not seen."""
    found: tuple[list[Pair], list[Pair], list[Pair]] = ([], [], [])
    for number, one in enumerate(challengers):
        after = _stack(run, _bytes(run, one.taught, restraint))
        measure = partial(evidence, run.engine, one.held_out, run.now.stack, after)
        for kind, part in zip(found, run.journal.noted(f"held out {number} at {restraint}", measure), strict=True):
            kind.extend(part)
    return found[0], Learned(*found[1:])


def _taught(run: Run, material: Material, phase: str, number: int = 0) -> Taught:
    """Make an adapter of `material`, from where the journal left off."""
    return teach(
        run.base, material, run.policy, run.start, under=run.under, kept=run.kept, reference=run.reference,
        progress=run.progress, journal=run.journal, phase=phase, number=number,
    )  # fmt: skip


def _bytes(run: Run, taught: Taught, restraint: float) -> bytes:
    """The adapter held to what the base knows, as bytes."""
    return to_gguf(taught.held(restraint), run.base.geometry, run.base.digest)


def _stack(run: Run, data: bytes) -> Stack:
    """What would serve with `data` as the personal adapter."""
    return run.now.with_adapter("personal", digest(data), data)

