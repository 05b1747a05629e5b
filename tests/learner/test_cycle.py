"""Whole learning runs on the embedded model: what is adopted, what is not, and what is left behind."""

from dataclasses import replace
from itertools import pairwise

import pytest

from feedback.engine import Engine
from feedback.models import ModelFile, probe_pairs
from learner.base import Base
from learner.challenge import check
from learner.cycle import judge_adapter, judge_release, learn
from learner.export import to_gguf
from learner.fitness import random_adapter
from learner.gate import GatePolicy, decide
from learner.lineage import rollback
from learner.material import gather, served
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.train import train
from store.base import StoreBase
from store.errors import IntegrityError, NotEligible, UsageError
from store.memory import MemoryStore
from store.records import Activation, Adapter, Consent, Message, Verdict, digest
from tests.learner.conftest import ROOMS, corrected, example, habit, teach_habit, teach_noise

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=20, max_steps=20), gate=GatePolicy(groups=2))
Probe = list[tuple[str, str]]
LIGHT_ON = (
    "turn on the {} light", "please turn on the {} light", "can you turn on the {} light", "turn the {} light on",
    "turn on the {} light now", "could you turn on the {} light", "hey, turn on the {} light", "turn on the {} lights",
    "now turn on the {} light", "just turn on the {} light",
)  # fmt: skip


@pytest.fixture(scope="module")
def taught(model: ModelFile, engine: Engine, base: Base, probe: Probe) -> tuple[StoreBase, Verdict]:
    """A store whose owner has corrected one habit in twelve rooms, after a learning run."""
    store = MemoryStore()
    teach_habit(store, model)
    return store, learn(store, engine, base, probe, POLICY)


def test_a_consistent_habit_is_learned_and_served(taught: tuple[StoreBase, Verdict], engine: Engine) -> None:
    """The gain on held-out rooms is proven, and a room never mentioned is answered right."""
    store, verdict = taught
    assert verdict.decision == "adopt"
    assert verdict.lower > 0
    assert verdict.evidence == len(ROOMS)
    name = store.active("personal")
    assert name == verdict.adapter
    engine.set_stack([(name, store.artefact(name))])
    prompt, answer = habit("basement")
    assert engine.generate([Message("user", prompt)]).text == answer


def test_the_verdict_holds_its_evidence(taught: tuple[StoreBase, Verdict]) -> None:
    """Slices, what was fixed, and lineage are on record."""
    store, verdict = taught
    names = [part.name for part in verdict.slices]
    assert names == ["held-out", "probe, whole answers", "probe", "fresh corrections"]
    assert verdict.slices[0].after - verdict.slices[0].before == pytest.approx(verdict.gain)
    assert len(verdict.fixed) >= len(ROOMS) // 2
    record = store.last(Adapter, digest=verdict.adapter)
    assert record is not None
    assert set(record.examples) == {one.id for one in store.examples()}
    assert store.last(Verdict) == verdict


def test_what_was_learned_is_no_longer_fresh(
    taught: tuple[StoreBase, Verdict], engine: Engine, base: Base, probe: Probe
) -> None:
    """A second run without new corrections waits and changes nothing."""
    store, verdict = taught
    again = learn(store, engine, base, probe, POLICY)
    assert again.decision == "wait"
    assert again.adapter == ""
    assert store.active("personal") == verdict.adapter


def test_few_corrections_wait(model: ModelFile, engine: Engine, base: Base, store: StoreBase) -> None:
    """Four different requests are no evidence; nothing is trained."""
    teach_habit(store, model, rooms=ROOMS[:4])
    verdict = learn(store, engine, base, [], POLICY)
    assert (verdict.decision, verdict.evidence) == ("wait", 4)
    assert store.count(Adapter) == 0


def test_one_request_corrected_often_counts_once(
    model: ModelFile, engine: Engine, base: Base, store: StoreBase
) -> None:
    """Ten corrections of the same request are one piece of evidence, and the newest answer counts."""
    for time in range(10):
        corrected(store, model, "movie time", f"served {time}", f"wanted {time}", float(time))
    verdict = learn(store, engine, base, [], POLICY)
    assert (verdict.decision, verdict.evidence) == ("wait", 1)


def test_nothing_is_learned_from_noise(model: ModelFile, engine: Engine, base: Base, store: StoreBase) -> None:
    """Corrections without a pattern give no gain on held-out ones: nothing is adopted."""
    teach_noise(store, model)
    verdict = learn(store, engine, base, [], POLICY)
    assert verdict.decision in ("wait", "reject")
    assert store.active("personal") is None


def test_a_skill_of_the_base_gives_way_only_where_its_owner_lets_it(
    model: ModelFile, engine: Engine, base: Base
) -> None:
    """Of corrections against what the base does right little is learned; all of it where the base is not protected."""
    skill = [(words.format(room), f'light.set(room="{room}", state="on")') for room in ROOMS for words in LIGHT_ON]
    verdicts = []
    for protect in (True, False):
        store = MemoryStore()
        for time, room in enumerate(ROOMS):
            wanted = f'light.dim(room="{room}", level=15)'
            corrected(store, model, f"turn on the {room} light", "", wanted, float(time))
        verdicts.append(learn(store, engine, base, skill, replace(POLICY, protect_base=protect)))
    kept, overruled = verdicts
    assert all(part.before - part.after <= 1 for part in kept.slices if part.name.startswith("probe"))
    assert overruled.decision == "adopt"
    assert overruled.gain > 2 * kept.gain


def test_a_planted_bad_adapter_is_refused(
    taught: tuple[StoreBase, Verdict], engine: Engine, base: Base, probe: Probe
) -> None:
    """An adapter trained on wrong answers is rejected by the same gate, and nothing is written."""
    store, verdict = taught
    wrong = [example(habit(room)[0], habit(other)[1]) for room, other in pairwise(ROOMS)]
    bad = to_gguf(train(base, wrong, [], POLICY.recipe), base.geometry, base.digest)
    before = store.count(Verdict)
    judged, adapter = judge_adapter(store, engine, bad, slot="personal", probe=probe, policy=POLICY)
    assert judged.decision == "reject"
    assert adapter.digest == digest(bad)
    assert store.count(Verdict) == before
    assert store.active("personal") == verdict.adapter


def test_a_shared_adapter_that_helps_is_adopted_and_can_be_rolled_back(
    model: ModelFile, engine: Engine, base: Base, probe: Probe, store: StoreBase
) -> None:
    """A newcomer whose corrections follow the fleet's habit takes the fleet's adapter; rollback takes it out."""
    teach_habit(store, model, rooms=ROOMS[:6])
    others = [example(*habit(room)) for room in ROOMS[6:]]
    replay = [example(prompt, answer, rejected=None) for prompt, answer in probe]
    shared = to_gguf(train(base, others, replay, POLICY.recipe), base.geometry, base.digest)
    verdict = judge_release(store, engine, shared, "release-1", probe=[], policy=POLICY)
    assert verdict.decision == "adopt"
    assert store.active("shared") == digest(shared)
    assert engine.stack == (digest(shared),)
    assert rollback(store, "shared") is None
    assert store.active("shared") is None


def test_a_shared_adapter_that_hurts_is_kept_but_not_served(
    model: ModelFile, engine: Engine, base: Base, probe: Probe, store: StoreBase
) -> None:
    """Rejected releases stay on record with their verdict."""
    teach_habit(store, model, rooms=ROOMS[:6])
    data = to_gguf(random_adapter(base, size=0.5), base.geometry, base.digest)
    verdict = judge_release(store, engine, data, "release-2", probe=probe, policy=POLICY)
    assert verdict.decision == "reject"
    assert store.active("shared") is None
    assert store.artefact(digest(data)) == data
    assert engine.stack == ()


def test_nothing_to_roll_back_is_said(store: StoreBase) -> None:
    """An empty slot is a usage error."""
    with pytest.raises(UsageError):
        rollback(store, "personal")


def test_withdrawn_consent_stops_learning(model: ModelFile, engine: Engine, base: Base, store: StoreBase) -> None:
    """The owner's no is final until it is taken back."""
    teach_habit(store, model)
    store.add(Consent(purpose="learn", granted=False, time=1.0))
    with pytest.raises(NotEligible):
        learn(store, engine, base, [], POLICY)


def test_a_base_that_is_not_the_served_model_is_refused(
    model: ModelFile, engine: Engine, base: Base, store: StoreBase
) -> None:
    """Training one model and serving another is caught before any step."""
    teach_habit(store, model)
    with pytest.raises(IntegrityError):
        learn(store, engine, replace(base, digest=digest(b"other")), [], POLICY)


def test_an_adapter_of_another_base_is_not_continued(
    model: ModelFile, engine: Engine, base: Base, store: StoreBase
) -> None:
    """After a change of model the old adapter is left alone and its corrections are fresh again."""
    teach_habit(store, model, rooms=ROOMS[:4])
    learned = tuple(one.id for one in store.examples())
    name = store.put_artefact(b"of another base")
    store.add(Adapter(digest=name, slot="personal", base=digest(b"other"), examples=learned, time=1.0))
    store.add(Activation(slot="personal", adapter=name, reason="old", time=1.0))
    assert learn(store, engine, base, [], POLICY).evidence == 4


def test_a_hopeless_adapter_is_refused_after_part_of_the_pairs(engine: Engine, base: Base) -> None:
    """What has lost too much already is refused without being asked the rest; what keeps all is asked everything."""
    store, data = MemoryStore(), to_gguf(random_adapter(base, size=2.0), base.geometry, base.digest)
    now, gate = served(store, engine), POLICY.gate
    material = gather(store, now.learned, probe_pairs(engine.model.path), gate)
    after = now.with_adapter("personal", digest(data), data)
    full, brief = (check(engine, now, after, material, POLICY, brief=brief).slices for brief in (False, True))
    assert full[0].name == brief[0].name == "probe, whole answers"
    assert full[0].count == brief[0].count == gate.guard
    assert full[0].after <= brief[0].after < brief[0].before - gate.max_fall  # those not asked count as they were
    assert decide([], full, gate).decision == decide([], brief, gate).decision == "reject"
    kept = check(engine, now, now.stack, material, POLICY, brief=True).slices
    assert [one.before - one.after for one in kept] == pytest.approx([0.0, 0.0], abs=1e-4)
