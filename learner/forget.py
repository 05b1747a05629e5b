"""Forgetting: what was said goes, what learned from it goes, and what is left is learned again.

An adapter names every example it learned from, and continues another one that knew fewer: the chain of adopted
adapters is a record of slices, as in SISA training (Bourtoule et al. 2019, arXiv 1912.03817). Forgetting goes back
to the newest adapter in the chain that never saw what is to go and trains once from there on what remains, so it costs
at most one training however much was learned since.

Order: the clean adapter serves and the others are destroyed, then the words are destroyed, then the rest is learned
again. A crash in between leaves less behind, never more, and forgetting again goes on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic, time

from feedback.engine import Engine
from learner.base import Base, load_base
from learner.challenge import Outcome, loosest
from learner.cycle import starting_point
from learner.export import to_gguf
from learner.exposure import Exposure, exposure, likelihoods
from learner.judge import Stack
from learner.material import Material, Probe, Served, gather, served
from learner.policy import LearnPolicy, Progress
from learner.regmean import Moments
from learner.teach import Taught, held, replayed, teach
from store.base import StoreBase
from store.records import Activation, Adapter, Example, Spend, Verdict, digest

TWIN_SEED = 7919  # added to a run's own seed for the twin's


@dataclass(frozen=True, slots=True)
class Plan:
    """What forgetting would do."""

    ids: tuple[str, ...]  # interactions that go, with everything that hangs on them
    examples: tuple[Example, ...]  # what could be learned from them
    exposed: tuple[str, ...]  # personal adapters that did
    serving: str | None
    clean: str | None  # the newest adapter of the serving one's line that did not; None: the base alone


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was learned again."""

    adapter: str | None  # None: nothing was left to learn, or it would have lost an old skill
    corrections: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What left in private updates and cannot be recalled."""

    runs: int  # since the first of what was forgotten was said
    epsilon: float  # of the device's whole life, which bounds what all of them say of one unit
    delta: float
    unit: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done."""

    removed: int  # records destroyed
    destroyed: tuple[str, ...]  # adapters
    start: str | None  # the adapter that never saw it
    rebuilt: Rebuilt
    before: Exposure | None  # None: no adapter in use had seen it, or not measured
    after: Exposure | None
    shared: Shared | None


@dataclass(frozen=True, slots=True)
class Tools:
    """What learning again works with."""

    engine: Engine
    base: Base | None  # loaded when needed if None
    probe: Probe
    policy: LearnPolicy
    progress: Progress | None = None


def plan(store: StoreBase, ids: Sequence[str]) -> Plan:
    """Return what forgetting these interactions would do; writes nothing."""
    examples = tuple(store.examples_of(ids))
    seen = frozenset(id for one in examples for id in (one.id, replace(one, share=not one.share).id))
    exposed = {one.digest for one in store.all(Adapter) if one.slot == "personal" and seen & set(one.examples)}
    serving = store.active("personal")
    return Plan(tuple(ids), examples, tuple(sorted(exposed)), serving, _clean(store, serving, exposed))


def forget(store: StoreBase, found: Plan, tools: Tools, *, measure: bool = True) -> Forgotten:
    """Carry out a plan; the store's lock on learning is the caller's to hold.

    Args:
        measure: also train the twin and measure exposure; doubles the time.
    Raises:
        IntegrityError: the store is damaged.
    """
    store.require_whole()
    shared = _shared(store, found)
    engine = tools.engine
    affected = found.serving in found.exposed
    scored = affected and measure
    old = likelihoods(engine, found.examples, _stack(store, engine, found.serving)) if scored else None
    if affected:
        store.add(Activation(slot="personal", adapter=found.clean, reason="forgetting", time=time()))
    for name in found.exposed:
        store.drop_artefact(name)
    removed = store.remove_all(found.ids) if found.ids else []
    rebuilt, twin = _rebuild(store, tools, twin=scored) if affected else (Rebuilt(None), None)
    before = after = None
    if old is not None:
        new, other = (likelihoods(engine, found.examples, _stack(store, engine, name, data)) for name, data in (
            (store.active("personal"), None), (None, twin)
        ))  # fmt: skip
        before, after = exposure(old, other), exposure(new, other)
    engine.set_stack(served(store, engine).stack)
    return Forgotten(len(removed), found.exposed, found.clean, rebuilt, before, after, shared)


def as_body(done: Forgotten) -> dict[str, object]:
    """Return what a receipt says: counts, names of adapters and measurements."""
    said = "Updates that left are noise by design and cannot be recalled; epsilon bounds what they say of one unit."
    return {**asdict(done), "cannot_be_recalled": said if done.shared else "Nothing of it ever left the device."}


def _clean(store: StoreBase, serving: str | None, exposed: set[str]) -> str | None:
    """Go back along the parents until one has not seen it."""
    name = serving
    while name in exposed:
        record = store.last(Adapter, digest=name)
        name = record.parent if record else None
    return name


def _rebuild(store: StoreBase, tools: Tools, *, twin: bool) -> tuple[Rebuilt, bytes | None]:
    """Learn what is left from the clean adapter, once; and a twin of that from other random choices."""
    engine, policy = tools.engine, tools.policy
    now = served(store, engine)
    material = gather(store, now.learned, tools.probe if policy.protect_base else (), policy.gate)
    if not material.fresh:
        return Rebuilt(None), (now.personal[1] if now.personal else None)
    base = tools.base or load_base(engine.model, threads=policy.flags.threads, hold=policy.flags.hold)
    began = monotonic()
    kept = held(base, material, policy)
    taught = _taught(base, now, material, tools, kept)
    restraint, made = loosest(
        lambda restraint: to_gguf(taught.held(restraint), base.geometry, base.digest), engine, now, material, policy
    )
    if made.ruling.decision != "reject":
        _serve(store, made, now, material, policy, base, monotonic() - began)
    steps = policy.recipe.all_steps(len(material.fresh))
    name = digest(made.data) if made.ruling.decision != "reject" else None
    done = Rebuilt(name, len(material.fresh), steps, monotonic() - began)
    if not twin:
        return done, None
    other = replace(policy, recipe=replace(policy.recipe, seed=policy.recipe.seed + TWIN_SEED))
    other_taught = _taught(base, now, material, replace(tools, policy=other), kept)
    return done, to_gguf(other_taught.held(restraint), base.geometry, base.digest)


def _taught(base: Base, now: Served, material: Material, tools: Tools, kept: Moments | None) -> Taught:
    """One training from what serves now."""
    start, under = starting_point(base, now, tools.policy.recipe)
    return teach(
        base, material, tools.policy, start, under=under, kept=kept, progress=tools.progress, phase="learning again"
    )


def _serve(
    store: StoreBase, made: Outcome, now: Served, material: Material, policy: LearnPolicy, base: Base, seconds: float
) -> None:
    """Adapter, verdict and activation in one transaction."""
    own = {one.id for one in material.own}
    used = {one.id for one in (*material.corrections, *replayed(material, policy))} & own
    adapter = Adapter(
        slot="personal", digest=store.put_artefact(made.data), base=base.digest,
        shared=now.shared[0] if now.shared else None, parent=now.personal[0] if now.personal else None,
        examples=tuple(sorted(used | now.learned)), time=time(),
    )  # fmt: skip
    ruling, checked = made.ruling, made.checked
    verdict = Verdict(
        adapter=adapter.digest, decision="adopt", reason="learned again after forgetting", gain=ruling.gain,
        lower=ruling.lower, upper=ruling.upper, evidence=0, slices=checked.slices, fixed=checked.fixed,
        broken=checked.broken, seconds=seconds, time=time(),
    )  # fmt: skip
    serving = Activation(slot="personal", adapter=adapter.digest, reason=verdict.reason, time=time())
    store.add_all([adapter, verdict, serving])


def _stack(store: StoreBase, engine: Engine, personal: str | None, data: bytes | None = None) -> Stack:
    """The shared adapter with one personal adapter above it."""
    shared = served(store, engine).shared
    own = (digest(data), data) if data is not None else (personal, store.artefact(personal)) if personal else None
    return [one for one in (shared, own) if one is not None]


def _shared(store: StoreBase, found: Plan) -> Shared | None:
    """Private updates that may rest on what is forgotten."""
    times = [one.time for one in found.examples if one.share]
    spends = [one for one in store.all(Spend) if times and one.time >= min(times)]
    if not spends:
        return None
    last = spends[-1]
    return Shared(len(spends), last.total, last.delta, last.unit)
