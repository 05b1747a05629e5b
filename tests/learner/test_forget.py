"""Forgetting on the embedded model: words and adapters go, the rest is learned again, the receipt tells."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from feedback.engine import Engine
from feedback.models import ModelFile, probe_pairs
from learner.base import Base
from learner.erasure import genuine, signed
from learner.export import from_gguf, to_gguf
from learner.exposure import auc, exposure
from learner.forget import Tools, forget, plan
from learner.gate import GatePolicy
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.train import train
from store.base import StoreBase
from store.errors import IntegrityError
from store.keys import Keys
from store.memory import MemoryStore
from store.records import Adapter, Correction, Erasure, Interaction, Rating, Spend, Verdict
from tests.learner.conftest import ROOMS, corrected, teach_habit

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=16, max_steps=16), gate=GatePolicy(groups=2))
LATER = ("shed", "loft", "roof")
SECRETS = [(f"the code of safe {number}", f'note.add(text="{7919 * (number + 3) % 9973}")') for number in range(6)]


@pytest.fixture(scope="module")
def told(model: ModelFile, engine: Engine, base: Base) -> tuple[StoreBase, list[str]]:
    """An owner who taught a habit, then secrets, after both of which an adapter was made; and these adapters."""
    return _told(model, base, lambda store: teach_habit(store, model, rooms=LATER))


def _told(model: ModelFile, base: Base, more: Callable[[StoreBase], None]) -> tuple[StoreBase, list[str]]:
    """A habit, an adapter, secrets and whatever else, another adapter."""
    store = MemoryStore()
    teach_habit(store, model)
    first = _adopt(store, base, None)
    for time, (prompt, answer) in enumerate(SECRETS):
        corrected(store, model, prompt, "music.stop()", answer, 100.0 + time)
    more(store)
    return store, [first, _adopt(store, base, first)]


def _adopt(store: StoreBase, base: Base, parent: str | None) -> str:
    """Learn everything there is on top of `parent` and serve it, whatever a gate would say of secrets."""
    start = from_gguf(store.artefact(parent), base.geometry, base.digest) if parent else None
    examples = store.examples()
    name = store.put_artefact(
        to_gguf(train(base, examples, [], POLICY.recipe, start=start), base.geometry, base.digest)
    )
    ids = tuple(one.id for one in examples)
    store.add(Adapter(slot="personal", digest=name, base=base.digest, parent=parent, examples=ids, time=50.0))
    store.activate("personal", name, "test")
    return name


def _secrets(store: StoreBase) -> list[str]:
    return [one.id for one in store.all(Interaction) if "safe" in one.messages[0].content]


def test_a_plan_finds_who_learned_from_it(told: tuple[StoreBase, list[str]]) -> None:
    """The second adapter saw the secrets, the first did not; words that a newer one replaced count, too."""
    store, (first, second) = told
    assert first != second
    found = plan(store, _secrets(store))
    assert (found.exposed, found.serving, found.clean) == ((second,), second, first)
    habit = [one.id for one in store.all(Interaction) if "kitchen" in one.messages[0].content]
    store.add(Correction(interaction=habit[0], corrected="something else", time=500.0))
    everything = plan(store, habit)
    assert set(everything.exposed) == {first, second}
    assert everything.clean is None


def test_what_is_forgotten_is_gone_and_the_rest_is_learned_again(
    told: tuple[StoreBase, list[str]], engine: Engine, base: Base
) -> None:
    """No word, no adapter, no example of it is left; exposure falls to the twin's; the habit is still known."""
    store, (first, second) = told
    spend = Spend(
        run="r", unit="correction", noise_multiplier=1.0, sampling_rate=0.1, steps=10, clipping_norm=1.0, delta=1e-6,
        epsilon=2.0, total=3.5, time=200.0,
    )  # fmt: skip
    store.add(spend)
    gone = _secrets(store)
    examples = {one.id for one in store.examples_of(gone)}
    done = forget(store, plan(store, gone), Tools(engine, base, [], POLICY))
    assert done.removed == 2 * len(SECRETS)
    assert done.destroyed == (second,)
    assert done.start == first
    assert not _secrets(store)
    with pytest.raises(IntegrityError):
        store.artefact(second)
    serving = store.last(Adapter, digest=store.active("personal"))
    assert serving is not None
    assert serving.digest not in (first, second)
    assert not examples & set(serving.examples)
    assert done.rebuilt.steps == POLICY.recipe.max_steps + POLICY.recipe.settled.max_steps
    assert done.before is not None
    assert done.after is not None
    assert done.before.mean > 0.5
    assert abs(done.after.mean) < done.before.mean / 4
    assert done.shared is not None
    assert (done.shared.runs, done.shared.epsilon) == (1, 3.5)
    keys = Keys.generate()
    erasure = signed(done, keys)
    assert genuine(erasure.body, erasure.signature, erasure.key)
    assert not genuine(erasure.body.replace('"removed":12', '"removed":13'), erasure.signature, erasure.key)
    body = json.loads(erasure.body)
    assert "cannot be recalled" in body["cannot_be_recalled"]
    assert not any(word in erasure.body for word in ("safe", "note.add", *examples, *gone))
    store.add(erasure)
    assert store.last(Erasure) == erasure


def test_learning_again_keeps_what_the_model_could_do(model: ModelFile, engine: Engine, base: Base) -> None:
    """With the pairs that owners have: their slices are in the verdict, whole and a point lower at most."""
    store, (first, _) = _told(model, base, lambda store: teach_habit(store, model, rooms=LATER))
    tools = Tools(engine, base, probe_pairs(model.path), POLICY)
    done = forget(store, plan(store, _secrets(store)), tools, measure=False)
    assert done.rebuilt.adapter == store.active("personal") != first
    verdict = store.last(Verdict, adapter=done.rebuilt.adapter)
    assert verdict is not None
    slices = {part.name: part for part in verdict.slices}
    for name in ("probe, whole answers", "probe"):
        assert slices[name].count == POLICY.gate.guard
        assert slices[name].before > 90
        assert slices[name].before - slices[name].after <= POLICY.gate.max_fall
    learned = slices["fresh corrections"]
    assert learned.count == len(LATER)
    assert learned.after > learned.before + 10


def test_an_adapter_that_would_lose_old_skills_does_not_come_back(model: ModelFile, engine: Engine, base: Base) -> None:
    """An owner calls a known thing by another name, hardly held back: refused, and what knew neither serves again.

    Where the owner has said that corrections may overrule the model, the same adapter serves.
    """
    known = [pair for pair in probe_pairs(model.path) if pair[1].startswith("light.")][:30]

    def rename(store: StoreBase) -> None:
        for time, (prompt, answer) in enumerate(known):
            corrected(store, model, prompt, answer, answer.replace("light.", "lamp."), 200.0 + time)

    for protect in (True, False):
        store, (first, second) = _told(model, base, rename)
        policy = replace(POLICY, restraints=(0.1,), held_size=100, replay_size=300, protect_base=protect)
        tools = Tools(engine, base, probe_pairs(model.path), policy)
        done = forget(store, plan(store, _secrets(store)), tools, measure=False)
        assert done.destroyed == (second,)
        assert done.rebuilt.corrections == len(known)
        assert (done.rebuilt.adapter is None) == protect
        assert (store.active("personal") == first) == protect
        assert engine.stack == (store.active("personal"),)
        assert not _secrets(store)


def test_what_was_never_learned_only_goes(model: ModelFile, engine: Engine, base: Base, store: StoreBase) -> None:
    """Nothing is trained, nothing is measured, and nothing ever left."""
    teach_habit(store, model, rooms=ROOMS[:2])
    store.add(Rating(interaction=store.all(Interaction)[0].id, value=1, time=9.0))
    done = forget(store, plan(store, [store.all(Interaction)[0].id]), Tools(engine, base, [], POLICY))
    assert (done.removed, done.destroyed, done.rebuilt.adapter) == (3, (), None)
    assert done.before is None
    assert done.shared is None
    assert store.count(Interaction) == 1


def test_exposure_and_membership_by_hand() -> None:
    """The mean and most of the differences; of four pairs three are in order and one is tied."""
    found = exposure(np.array([-1.0, -0.5]), np.array([-2.0, -2.5]))
    assert (found.mean, found.most) == (1.5, 2.0)
    assert auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == 0.875
