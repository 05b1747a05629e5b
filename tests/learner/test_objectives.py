"""Each objective against its formula, and what a few steps of it do."""

import math
from dataclasses import replace

import pytest
import torch

from learner.base import Base
from learner.encode import Encoded, encode
from learner.lora import LoraSpec, attached
from learner.objectives import dpo, kto, log_ratios
from learner.recipe import Recipe
from learner.train import train
from store.records import Example
from tests.learner.conftest import ROOMS, example, habit

RECIPE = Recipe(batch=8, min_steps=10, max_steps=10, lr=1e-3)
HABITS = [example(*habit(room), rejected="music.stop()") for room in ROOMS]


def _item(base: Base, one: Example, answer: str) -> Encoded:
    item = encode(base, replace(one, answer=answer), max_tokens=512)
    assert item is not None
    return item


def _ratio(base: Base, recipe: Recipe, answer: str, **rated: object) -> float:
    """Mean log-likelihood ratio of `answer` to all habits after a run."""
    weights = train(base, HABITS, [], recipe, **rated)  # type: ignore[arg-type]
    with attached(base, LoraSpec(), start=weights) as held, torch.no_grad():
        return float(log_ratios(held, [_item(base, one, answer) for one in HABITS], {}).mean())


def test_dpo_is_its_formula() -> None:
    """Equal ratios cost log 2; a margin m costs log(1 + exp(-beta m))."""
    found = dpo(torch.tensor([1.0, 3.0]), torch.tensor([1.0, -1.0]), 0.5)
    assert found.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2))])


def test_kto_is_its_formula_and_weighs_both_kinds_alike() -> None:
    """At the drift an answer costs half its weight; good ones gain by rising, bad ones by falling."""
    good = torch.tensor([True, False])
    at_drift = kto(torch.tensor([0.3, 0.3]), good, torch.tensor(0.3), 1.0)
    assert at_drift.tolist() == pytest.approx([0.25, 0.25])
    better = kto(torch.tensor([1.3, -0.7]), good, torch.tensor(0.3), 1.0)
    assert better.tolist() == pytest.approx([0.5 * (1 - 1 / (1 + math.exp(-1)))] * 2)
    lopsided = kto(torch.zeros(4), torch.tensor([True, True, True, False]), torch.tensor(0.0), 1.0)
    assert lopsided[3] == pytest.approx(1.5 * float(lopsided[0]))


def test_an_adapter_that_does_nothing_has_ratio_zero(base: Base) -> None:
    """The reference is the model with the adapter off."""
    with attached(base, LoraSpec()) as held, torch.no_grad():
        held.hasten(torch.float32)
        assert log_ratios(held, [_item(base, one, one.answer) for one in HABITS[:3]], {}).abs().max() < 1e-4


def test_preferences_push_the_refused_answer_down(base: Base) -> None:
    """With DPO beside cross-entropy the refused answer falls further than with cross-entropy alone."""
    refused = "music.stop()"
    with_pairs = _ratio(base, replace(RECIPE, preference_weight=1.0, beta=0.3), refused)
    assert with_pairs < _ratio(base, RECIPE, refused) - 1.0


def test_a_thumb_down_pushes_an_answer_down(base: Base) -> None:
    """KTO on bad answers lowers them; without its weight they are not looked at."""
    bad = [(replace(one, answer="light.flash()"), False) for one in HABITS]
    rated = [*bad, *((one, True) for one in HABITS)]
    with_thumbs = _ratio(base, replace(RECIPE, rating_weight=3.0, beta=0.3), "light.flash()", rated=rated)
    assert with_thumbs < _ratio(base, RECIPE, "light.flash()", rated=rated) - 1.0
