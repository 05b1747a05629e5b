"""One learning run, from the owner's corrections to a verdict, and the ways back.

1. Gather what is fresh. Too little: wait.
2. Cross-fit: for one fold of requests after the other, train a challenger on everything outside the fold and score
   the fold's fresh corrections, through llama.cpp, against what serves now. Neither has ever seen them. The first
   challenger also finds out how far one may go from the old adapter to the new without losing old skills.
3. Ask the gate whether the gain is real.
4. Train the final adapter on everything and check what must not be lost.
5. Adopt: bytes first, then adapter, verdict and activation in one transaction, so that a crash at any point
   leaves the old adapter serving.

Why cross-fitting: docs/decisions/0001-cross-fitted-gate.md. Talks to no network; what is trained here is personal.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from feedback.engine import Engine
from learner.base import Base, load_base
from learner.export import from_gguf, to_gguf
from learner.gate import GatePolicy, Pair, Ruling, decide, fold_groups, fold_of
from learner.judge import ItemScore, Stack, compare, score_corrections, score_known, serving
from learner.lora import LoraSpec, LoraWeights, blend, fresh
from learner.material import Material, Probe, Served, gather, served
from learner.policy import LearnPolicy, Progress
from learner.train import train
from store.base import StoreBase
from store.errors import IntegrityError, NotEligible
from store.records import Activation, Adapter, Consent, Example, Slice, Slot, Verdict, digest


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same during one run."""

    engine: Engine
    base: Base
    now: Served
    material: Material
    policy: LearnPolicy
    progress: Progress | None
    start: LoraWeights
    under: LoraWeights | None


@dataclass(frozen=True, slots=True)
class _Checked:
    """Protected slices and single answers, before and after."""

    slices: tuple[Slice, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What cross-fitting found: the ruling on the evidence, and the last challenger."""

    ruling: Ruling
    strength: float  # share of the way that loses no old skill; 0: none found
    data: bytes
    checked: _Checked | None


def learn(
    store: StoreBase,
    engine: Engine,
    base: Base | None,
    probe: Probe,
    policy: LearnPolicy,
    *,
    progress: Progress | None = None,
) -> Verdict:
    """Run once; the verdict is stored and returned. The engine serves what the store says afterwards.

    Args:
        base: the training base of the engine's model; loaded when needed if None.
        probe: (prompt, answer) pairs of the base model's own skill, from `feedback.models.probe_pairs`.
        progress: called with (phase, step, steps, loss).
    Raises:
        NotEligible: the owner has withdrawn consent to learning.
        IntegrityError: the store is damaged, or `base` is not the engine's model.
    """
    started = time.monotonic()
    _require_allowed(store)
    now = served(store, engine)
    material = gather(store, now.learned, probe, policy.gate)
    if len(material.fresh) < policy.gate.min_evidence:
        ruling = decide([(0.0, 0.0)] * len(material.fresh), (), policy.gate)
        return _keep(store, ruling, started)
    run = _prepare(engine, base, now, material, _reseeded(store, policy), progress)
    with serving(engine, now.stack, now.stack):
        fitted = _cross_fit(run)
        ruling = fitted.ruling
        if ruling.decision != "adopt":
            made = _record(run, fitted.data) if ruling.decision == "reject" else None
            return _keep(store, ruling, started, made, fitted.checked)
        final = _train(run, material.fresh, material.earlier, "final")
        data = _bytes(run, final, fitted.strength)
        checked = _check(engine, now, run.now.with_adapter("personal", digest(data), data), material, policy)
    ruling = _with_slices(ruling, checked.slices, policy.gate)
    return _keep(store, ruling, started, _record(run, data), checked)


def judge_adapter(
    store: StoreBase, engine: Engine, data: bytes, *, slot: Slot, probe: Probe, policy: LearnPolicy
) -> tuple[Verdict, Adapter]:
    """Judge any adapter for `slot` against what serves now, without adopting it or writing anything.

    Evidence are the fresh corrections, or all of them where too few are fresh. The engine serves as before.
    Raises:
        IntegrityError: damaged bytes, or made for another base.
    """
    started = time.monotonic()
    now = served(store, engine)
    material = gather(store, now.learned, probe, policy.gate)
    enough = len(material.fresh) >= policy.gate.min_evidence
    evidence = material.fresh if enough else material.corrections
    name = digest(data)
    after = now.with_adapter(slot, name, data)
    pairs = _pairs(engine, evidence, now.stack, after)
    checked = _check(engine, now, after, material, policy)
    ruling = decide(pairs, checked.slices, policy.gate)
    adapter = Adapter(slot=slot, digest=name, base=engine.model.digest, time=time.time())
    return _verdict(name, ruling, started, checked), adapter


def judge_release(
    store: StoreBase, engine: Engine, data: bytes, release: str, *, probe: Probe, policy: LearnPolicy
) -> Verdict:
    """Judge a shared adapter on this device and serve it if the gate adopts it.

    Args:
        data: GGUF bytes of the shared adapter.
        release: id of the signed manifest it came with, already verified.
    Raises:
        IntegrityError: damaged bytes, or made for another base.
    """
    store.require_whole()
    verdict, adapter = judge_adapter(store, engine, data, slot="shared", probe=probe, policy=policy)
    _commit(store, verdict, replace(adapter, parent=store.active("shared"), release=release), data)
    now = served(store, engine)
    engine.set_stack(now.stack)
    return verdict


def _require_allowed(store: StoreBase) -> None:
    """Learning stops where the store is damaged or the owner has said no."""
    store.require_whole()
    word = store.last(Consent, purpose="learn")
    if word is not None and not word.granted:
        hint = "Grant it again with `corrigible privacy consent learn`."
        raise NotEligible("Consent to learning was withdrawn.", hint=hint, code="no_consent")


def _reseeded(store: StoreBase, policy: LearnPolicy) -> LearnPolicy:
    """Give every run its own order of examples, reproducibly."""
    return replace(policy, recipe=replace(policy.recipe, seed=policy.recipe.seed + store.count(Verdict)))


def _prepare(
    engine: Engine, base: Base | None, now: Served, material: Material, policy: LearnPolicy, progress: Progress | None
) -> _Run:
    """Load what training needs."""
    base = base or load_base(engine.model, threads=policy.flags.threads)
    if base.digest != engine.model.digest:
        raise IntegrityError("The training base is not the model that serves.", code="foreign_base")
    recipe = policy.recipe
    start = (
        from_gguf(now.personal[1], base.geometry, base.digest)
        if now.personal
        else fresh(LoraSpec(recipe.rank, recipe.alpha, recipe.seed), base.geometry)
    )
    under = from_gguf(now.shared[1], base.geometry, base.digest) if now.shared else None
    return _Run(engine, base, now, material, policy, progress, start, under)


def _cross_fit(run: _Run) -> _Fitted:
    """Steps 2 and 3."""
    gate, material = run.policy.gate, run.material
    pairs: list[Pair] = []
    strength, data = 0.0, b""
    for held in fold_groups([one.request for one in material.fresh], gate):
        inside, outside = _split(material.fresh, held, gate)
        if not outside:
            continue
        known = _split(material.earlier, held, gate)[1]
        weights = _train(run, outside, known, "challenger")
        if not strength:
            strength, data, checked = _strength(run, weights, replace(material, fresh=tuple(outside)))
            if not strength:
                return _Fitted(decide([], checked.slices, gate), 0.0, data, checked)
        data = _bytes(run, weights, strength)
        pairs += _pairs(run.engine, inside, run.now.stack, run.now.with_adapter("personal", digest(data), data))
        if len(pairs) >= gate.target_evidence:
            break
    return _Fitted(decide(pairs, (), gate), strength, data, None)


def _strength(run: _Run, weights: LoraWeights, material: Material) -> tuple[float, bytes, _Checked]:
    """Return the first strength at which no protected slice falls, 0 when every one does; the last bytes and check.

    Only protected slices are looked at, never the evidence, so that the evidence stays clean.
    """
    for strength in run.policy.strengths:
        data = _bytes(run, weights, strength)
        stack = run.now.with_adapter("personal", digest(data), data)
        checked = _check(run.engine, run.now, stack, material, run.policy)
        if decide([], checked.slices, run.policy.gate).decision != "reject":
            return strength, data, checked
    return 0.0, data, checked


def _split(examples: Sequence[Example], held: frozenset[int], gate: GatePolicy) -> tuple[list[Example], list[Example]]:
    """Examples inside and outside the held-out folds."""
    inside = [one for one in examples if fold_of(one.request, gate) in held]
    return inside, [one for one in examples if fold_of(one.request, gate) not in held]


def _train(run: _Run, fresh: Sequence[Example], earlier: Sequence[Example], phase: str) -> LoraWeights:
    """Train on `fresh` with replay."""
    size = run.policy.replay_size
    replay = [*earlier[-size:], *run.material.approved[-size:], *run.material.probe]
    report = run.progress

    def tell(step: int, steps: int, loss: float) -> None:
        if report is not None:
            report(phase, step, steps, loss)

    return train(run.base, fresh, replay, run.policy.recipe, start=run.start, under=run.under, progress=tell)


def _bytes(run: _Run, weights: LoraWeights, strength: float) -> bytes:
    """The adapter `strength` of the way from where training started, as bytes."""
    return to_gguf(blend(run.start, weights, strength), run.base.geometry, run.base.digest)


def _pairs(engine: Engine, examples: Sequence[Example], before: Stack, after: Stack) -> list[Pair]:
    """Scores of held-out corrections under both stacks; `before` serves at the end."""
    with serving(engine, before, before):
        old = score_corrections(engine, examples)
        engine.set_stack(after)
        new = score_corrections(engine, examples)
    return [(one.value, two.value) for one, two in zip(old, new, strict=True)]


def _check(engine: Engine, now: Served, after: Stack, material: Material, policy: LearnPolicy) -> _Checked:
    """Score what must not be lost under both stacks."""
    size = policy.slice_size
    groups = {
        "probe": material.guard[-size:],
        "approved": material.approved[-size:],
        "earlier corrections": material.earlier[-size:],
        "fresh corrections": material.fresh[-size:],
    }
    with serving(engine, now.stack, now.stack):
        old = {name: score_known(engine, examples) for name, examples in groups.items()}
        engine.set_stack(after)
        new = {name: score_known(engine, examples) for name, examples in groups.items()}
    slices = tuple(compare(name, old[name], new[name]) for name, examples in groups.items() if examples)
    own = [name for name in groups if name != "probe"]
    moved = [(one.id, a, b) for name in own for one, a, b in zip(groups[name], old[name], new[name], strict=True)]
    return _Checked(slices, _ids(moved, to=True), _ids(moved, to=False))


def _ids(moved: Sequence[tuple[str, ItemScore, ItemScore]], *, to: bool) -> tuple[str, ...]:
    """Ids of the answers whose exactness changed to `to`."""
    return tuple(id for id, before, after in moved if before.exact is not to and after.exact is to)


def _with_slices(ruling: Ruling, slices: Sequence[Slice], gate: GatePolicy) -> Ruling:
    """Let the protected slices of the final adapter overrule proven evidence."""
    fallen = decide([], slices, gate)
    return replace(ruling, decision="reject", reason=fallen.reason) if fallen.decision == "reject" else ruling


def _record(run: _Run, data: bytes) -> tuple[Adapter, bytes]:
    """The adapter's record: its parents and everything it learned from."""
    size = run.policy.replay_size
    used = {one.id for one in (*run.material.corrections, *run.material.approved[-size:])}
    record = Adapter(
        slot="personal",
        digest=digest(data),
        base=run.base.digest,
        shared=run.now.shared[0] if run.now.shared else None,
        parent=run.now.personal[0] if run.now.personal else None,
        examples=tuple(sorted(used | run.now.learned)),
        time=time.time(),
    )
    return record, data


def _keep(
    store: StoreBase, ruling: Ruling, started: float, made: tuple[Adapter, bytes] | None = None,
    checked: _Checked | None = None,
) -> Verdict:
    """Store the verdict, with the adapter where one was made."""
    verdict = _verdict(made[0].digest if made else "", ruling, started, checked)
    if made is None:
        store.add(verdict)
    else:
        _commit(store, verdict, *made)
    return verdict


def _verdict(name: str, ruling: Ruling, started: float, checked: _Checked | None) -> Verdict:
    """A ruling with its evidence as a record."""
    checked = checked or _Checked((), (), ())
    return Verdict(
        adapter=name, decision=ruling.decision, reason=ruling.reason, gain=ruling.gain, lower=ruling.lower,
        upper=ruling.upper, evidence=ruling.evidence, slices=checked.slices, fixed=checked.fixed,
        broken=checked.broken, seconds=time.monotonic() - started, time=time.time(),
    )


def _commit(store: StoreBase, verdict: Verdict, adapter: Adapter, data: bytes) -> None:
    """Bytes first, then all records at once: a crash in between leaves the old adapter serving."""
    store.put_artefact(data)
    records: list[Adapter | Verdict | Activation] = [adapter, verdict]
    if verdict.decision == "adopt":
        records.append(
            Activation(slot=adapter.slot, adapter=adapter.digest, reason=verdict.reason, time=verdict.time)
        )
    store.add_all(records)
