"""A training learns, is held to the base, and settles behind an A that stays."""

from dataclasses import replace

import numpy as np
import pytest

from feedback.engine import Engine
from feedback.models import probe_pairs
from learner.base import Base
from learner.export import to_gguf
from learner.gate import GatePolicy
from learner.judge import ItemScore, score_known, serving
from learner.lora import LoraSpec, LoraWeights, fresh
from learner.material import Material, gather
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.regmean import restrained
from learner.skills import known_skills, slices
from learner.teach import Taught, held, replayed, teach
from learner.train import train
from store.errors import NotEligible
from store.memory import MemoryStore
from store.records import digest
from tests.learner.conftest import ROOMS, example, habit

RECIPE = Recipe(batch=8, min_steps=20, max_steps=20, settle_restraint=200.0)  # so close that much is taken
POLICY = LearnPolicy(recipe=RECIPE, replay_size=120, held_size=60)


@pytest.fixture(scope="module")
def material(engine: Engine) -> Material:
    """Some rooms corrected, and the base's own pairs."""
    probe = gather(MemoryStore(), frozenset(), probe_pairs(engine.model.path), GatePolicy())
    return replace(probe, fresh=tuple(example(*habit(room)) for room in ROOMS))


@pytest.fixture(scope="module")
def start(base: Base) -> LoraWeights:
    """An adapter that changes nothing."""
    return fresh(LoraSpec(), base.geometry)


@pytest.fixture(scope="module")
def taught(base: Base, material: Material, start: LoraWeights) -> Taught:
    """What a training makes of it."""
    return teach(base, material, POLICY, start, kept=held(base, material, POLICY))


@pytest.fixture(scope="module")
def before(base: Base, material: Material, start: LoraWeights, taught: Taught) -> LoraWeights:
    """The same, held to the base, before it settles."""
    learned = train(base, material.fresh, replayed(material, POLICY), RECIPE, start=start)
    return restrained(learned, taught.own, taught.kept, RECIPE.settle_restraint)


def test_settling_moves_b_alone(taught: Taught, before: LoraWeights) -> None:
    """A is what holding made of it, to the bit."""
    assert all(np.array_equal(taught.weights.a[path], matrix) for path, matrix in before.a.items())
    assert not any(np.array_equal(taught.weights.b[path], matrix) for path, matrix in before.b.items())


def test_settling_learns_again_what_holding_took(
    engine: Engine, base: Base, material: Material, taught: Taught, before: LoraWeights
) -> None:
    """The corrections are likelier after it, by far."""

    def likelihood(weights: LoraWeights) -> float:
        data = to_gguf(weights, base.geometry, base.digest)
        with serving(engine, [(digest(data), data)], []):
            return float(np.mean([one.likelihood for one in score_known(engine, material.fresh)]))

    assert likelihood(taught.weights) > likelihood(before) + 0.05


def test_without_corrections_nothing_is_learned(base: Base, material: Material, start: LoraWeights) -> None:
    """The error that a learning run turns into words."""
    with pytest.raises(NotEligible) as caught:
        teach(base, replace(material, fresh=()), POLICY, start)
    assert caught.value.code == "nothing_to_learn"


def test_near_ties_do_not_speak_for_whole_answers(material: Material) -> None:
    """A pair that turns at a tie costs an exact answer and next to nothing; one that is lost costs its probability."""
    guard = material.guard[:4]
    known = {one.id: ItemScore(exact=True, likelihood=0.9, whole=0.5) for one in guard}
    tie = {**known, guard[0].id: ItemScore(exact=False, likelihood=0.9, whole=0.49)}
    lost = {**known, guard[0].id: ItemScore(exact=False, likelihood=0.5, whole=0.1)}
    fallen = [slices(guard, known, after)[0] for after in (tie, lost)]
    assert [one.before - one.after for one in fallen] == pytest.approx([0.25, 10.0])


def test_what_is_remembered_under_one_stack_is_not_said_of_another(
    engine: Engine, base: Base, material: Material, taught: Taught
) -> None:
    """Asked in turn, every stack gives what it gives when nothing is remembered."""
    data = to_gguf(taught.weights, base.geometry, base.digest)
    guard = material.guard[:8]
    for stack in ([], [(digest(data), data)], []):
        engine.set_stack(stack)
        fresh_scores = [one.whole for one in score_known(engine, guard)]
        assert [known_skills(engine, guard)[one.id].whole for one in guard] == pytest.approx(fresh_scores, abs=1e-6)
    engine.set_stack([])
