"""One learning run, from the owner's corrections to a verdict, and the ways back.

1. Gather what is fresh. Too little: wait.
2. Cross-fit: for some folds of requests after the others, train a challenger on everything outside them and score
   the fresh corrections inside, through llama.cpp, against what serves now. Neither has ever seen them.
3. Train the final adapter on everything and check what must not be lost. Where something is, hold it closer to the
   base on the base's own inputs (`regmean`). Ask the gate whether the challengers, held alike, gain for real.
4. Adopt: bytes first, then adapter, verdict and activation in one transaction, so that a crash at any point
   leaves the old adapter serving.

Why cross-fitting: docs/decisions/0001-cross-fitted-gate.md. Talks to no network; what is trained here is personal.
"""

import time
from dataclasses import asdict, replace

from feedback.engine import Engine
from learner.base import Base, load_base
from learner.challenge import Checked, Run, check, contest, evidence
from learner.export import from_gguf
from learner.gate import Learned, Ruling, decide
from learner.journal import Journal
from learner.judge import ItemScore, serving
from learner.lora import LoraSpec, LoraWeights, fresh
from learner.material import Material, Probe, Served, gather, served
from learner.objectives import Reference
from learner.policy import LearnPolicy, Progress
from learner.recipe import Recipe
from learner.teach import held, replayed
from store.base import StoreBase
from store.errors import IntegrityError, NotEligible
from store.records import Activation, Adapter, Consent, Slot, Trial, Verdict, canonical, digest


def learn(
    store: StoreBase,
    engine: Engine,
    base: Base | None,
    probe: Probe,
    policy: LearnPolicy,
    *,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Verdict:
    """Run once; the verdict is stored and returned. The engine serves what the store says afterwards.

    Args:
        base: the training base of the engine's model; loaded when needed if None.
        probe: (prompt, answer) pairs of the base model's own skill, from `feedback.models.probe_pairs`.
        progress: called with (phase, step, steps, loss).
        journal: where a run that was cut off goes on; a new one that keeps nothing if None.
    Raises:
        NotEligible: the owner has withdrawn consent to learning.
        IntegrityError: the store is damaged, or `base` is not the engine's model.
    """
    started = time.monotonic()
    journal = journal or Journal()
    _require_allowed(store)
    now = served(store, engine)
    policy = _reseeded(store, policy)
    probe = probe if policy.protect_base else ()
    material = _taken_up(journal, gather(store, now.learned, probe, policy.gate), now, engine, policy)
    if len(material.fresh) < policy.gate.min_evidence:
        ruling = decide([(0.0, 0.0)] * len(material.fresh), (), policy.gate)
        verdict = _keep(store, ruling, started, journal)
    else:
        run = _prepare(engine, base, now, material, policy, progress, journal)
        with serving(engine, now.stack, now.stack):
            outcome = contest(run)
        made = None if outcome.ruling.decision == "wait" else _record(run, outcome.data)
        verdict = _keep(store, outcome.ruling, started, journal, made, outcome.checked, policy.trial_share)
    journal.close()
    engine.set_stack(served(store, engine).stack)
    return verdict


def judge_adapter(
    store: StoreBase, engine: Engine, data: bytes, *, slot: Slot, probe: Probe, policy: LearnPolicy,
    known: dict[str, ItemScore] | None = None,
) -> tuple[Verdict, Adapter]:  # fmt: skip
    """Judge any adapter for `slot` against what serves now, without adopting it or writing anything.

    Evidence are the newest fresh corrections, of all where too few are fresh. A personal adapter's gain on them must be
    specific; a shared one knows other people's habits. The engine serves as before.

    Args:
        known: see `check`.
    Raises:
        IntegrityError: damaged bytes, or made for another base.
    """
    started = time.monotonic()
    now = served(store, engine)
    material = gather(store, now.learned, probe, policy.gate)
    enough = len(material.fresh) >= policy.gate.min_evidence
    items = (material.fresh if enough else material.corrections)[-policy.slice_size :]
    name = digest(data)
    after = now.with_adapter(slot, name, data)
    personal = slot == "personal"
    pairs, *rest = evidence(engine, items, now.stack, after, specific=personal)
    checked = check(engine, now, after, material, policy, known)
    ruling = decide(pairs, checked.slices, policy.gate, learned=Learned(*rest) if personal else None)
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


def _taken_up(journal: Journal, material: Material, now: Served, engine: Engine, policy: LearnPolicy) -> Material:
    """The material of the run that was cut off, where there is one and nothing it rests on has changed."""
    rest = [asdict(policy.recipe), asdict(policy.gate), policy.restraints, policy.held_size, policy.slice_size,
            policy.replay_size]
    stack = [name for name, _ in now.stack]
    probe = [one.id for one in (*material.probe, *material.guard)]
    identity = digest(canonical([engine.model.digest, stack, probe, rest]))
    ids = [one.id for one in material.own]
    known = journal.open(identity, ids, frozenset(ids))
    return material if known is None else material.only(frozenset(known))


def starting_point(base: Base, now: Served, recipe: Recipe) -> tuple[LoraWeights, LoraWeights | None]:
    """The weights that training continues, fresh ones where nothing serves, and the shared adapter below them."""
    start = (
        from_gguf(now.personal[1], base.geometry, base.digest)
        if now.personal
        else fresh(LoraSpec(recipe.rank, recipe.alpha, recipe.seed), base.geometry)
    )
    return start, from_gguf(now.shared[1], base.geometry, base.digest) if now.shared else None


def _prepare(
    engine: Engine, base: Base | None, now: Served, material: Material, policy: LearnPolicy,
    progress: Progress | None, journal: Journal,
) -> Run:
    """Load what training needs."""
    base = base or load_base(engine.model, threads=policy.flags.threads, hold=policy.flags.hold)
    if base.digest != engine.model.digest:
        raise IntegrityError("The training base is not the model that serves.", code="foreign_base")
    start, under = starting_point(base, now, policy.recipe)
    kept = held(base, material, policy)
    return Run(engine, base, now, material, policy, start, under, kept, progress, journal, Reference(journal.memory))


def _record(run: Run, data: bytes) -> tuple[Adapter, bytes]:
    """The adapter's record: its parents and everything it learned from."""
    own = {one.id for one in (*run.material.corrections, *run.material.approved)}
    used = {one.id for one in (*run.material.corrections, *replayed(run.material, run.policy))} & own
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
    store: StoreBase, ruling: Ruling, started: float, journal: Journal, made: tuple[Adapter, bytes] | None = None,
    checked: Checked | None = None, trial_share: float = 0.0,
) -> Verdict:
    """Store the verdict, with the adapter where one was made."""
    verdict = _verdict(made[0].digest if made else "", ruling, started, checked)
    with journal.quiet:
        if made is None:
            store.add(verdict)
        else:
            _commit(store, verdict, *made, trial_share=trial_share)
    return verdict


def _verdict(name: str, ruling: Ruling, started: float, checked: Checked | None) -> Verdict:
    """A ruling with its evidence as a record."""
    checked = checked or Checked()
    return Verdict(
        adapter=name, decision=ruling.decision, reason=ruling.reason, gain=ruling.gain, lower=ruling.lower,
        upper=ruling.upper, evidence=ruling.evidence, slices=ruling.held_out + checked.slices, fixed=checked.fixed,
        broken=checked.broken, seconds=time.monotonic() - started, time=time.time(),
    )


def _commit(
    store: StoreBase, verdict: Verdict, adapter: Adapter, data: bytes, *, trial_share: float = 0.0
) -> None:
    """Bytes first, then all records at once: a crash in between leaves the old adapter serving.

    An adopted adapter serves at once, or stands trial beside what serves when it is to prove itself in use first.
    """
    store.put_artefact(data)
    records: list[Adapter | Verdict | Activation | Trial] = [adapter, verdict]
    if verdict.decision == "adopt" and trial_share > 0:
        champion = store.active(adapter.slot)
        records.append(Trial(adapter=adapter.digest, champion=champion, share=trial_share, time=verdict.time))
    elif verdict.decision == "adopt":
        records.append(
            Activation(slot=adapter.slot, adapter=adapter.digest, reason=verdict.reason, time=verdict.time)
        )
    store.add_all(records)
