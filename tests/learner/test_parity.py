"""What is trained is what is served."""

from collections.abc import Iterator

import pytest
import torch

from feedback.engine import Engine
from feedback.models import ModelFile
from feedback.trace import Trace
from learner.base import Base, load_base, render, tokenize
from learner.fitness import random_adapter, random_texts
from learner.lora import LoraWeights
from learner.parity import check
from learner.recipe import Recipe
from learner.train import train
from store.records import Message
from tests.learner.conftest import ROOMS, example, habit

LIMITS = {"float32": 5e-3, "float16": 0.05}  # largest logit difference


def test_the_served_path_computes_what_was_trained(unquantised: ModelFile) -> None:
    """With the same weights as floats, PEFT and llama.cpp differ by rounding only, base and adapted."""
    base = load_base(unquantised)
    limit = LIMITS[unquantised.path.stem]
    with Engine(unquantised, context=512) as engine:
        assert check(engine, base, None).max_abs_logit_diff <= limit
        assert check(engine, base, random_adapter(base)).max_abs_logit_diff <= limit
        _assert_that_a_wrong_order_is_seen(base, engine, 10 * limit)


@pytest.fixture(scope="module")
def traced(model: ModelFile) -> Iterator[tuple[Engine, Trace]]:
    """An engine that tells what it multiplies."""
    trace = Trace()
    with Engine(model, context=512, trace=trace) as opened:
        yield opened, trace


@pytest.mark.parametrize("adapter", ["none", "random", "large", "trained"])
def test_under_the_same_rounding_the_shipped_model_computes_the_same_function(
    base: Base, engine: Engine, traced: tuple[Engine, Trace], adapter: str
) -> None:
    """PEFT with llama.cpp's rounding of activations gives its logits; without it next tokens move by < 0.1 nat."""
    weights = _adapter(base, adapter)
    opened, trace = traced
    rounded = check(opened, base, weights, trace=trace)
    assert rounded.max_abs_logit_diff <= 0.05
    assert rounded.drift <= 1e-3
    assert check(engine, base, weights).kl <= 0.1


def test_a_training_path_that_is_one_per_cent_off_is_seen(model: ModelFile, traced: tuple[Engine, Trace]) -> None:
    """One matrix of the training base scaled by 1.01 moves logits beyond the tolerance: the check can fail."""
    base = load_base(model)
    with torch.no_grad():
        base.model.get_submodule(next(path for path in base.geometry.shapes if "down_proj" in path)).weight.mul_(1.01)
    opened, trace = traced
    off = check(opened, base, None, trace=trace)
    assert off.max_abs_logit_diff > 0.05
    assert off.drift > 1e-3


def _adapter(base: Base, name: str) -> LoraWeights | None:
    """None, random ones, or one trained for a few steps on a house habit."""
    if name == "trained":
        return train(base, [example(*habit(room)) for room in ROOMS], [], Recipe(min_steps=8, max_steps=8))
    return {"none": None, "random": random_adapter(base), "large": random_adapter(base, size=0.1)}[name]


def _assert_that_a_wrong_order_is_seen(base: Base, engine: Engine, limit: float) -> None:
    """Swapping two layers' matrices moves logits beyond the tolerance: the check can fail."""
    weights = random_adapter(base, size=0.1)
    paths = [path for path in weights.b if path.endswith("up_proj")]
    swapped = {**weights.b, paths[0]: weights.b[paths[1]], paths[1]: weights.b[paths[0]]}
    tokens = render(base, [Message("user", "turn on the light")])
    served = []
    for one in (weights, LoraWeights(weights.a, swapped, weights.alpha)):
        check(engine, base, one)  # leaves it serving
        served.append(engine.logits(tokens))
    assert abs(served[0] - served[1]).max() > limit


def test_both_tokenisers_agree_on_a_thousand_random_strings(base: Base, engine: Engine) -> None:
    """ASCII, controls and other scripts give the same tokens in transformers and llama.cpp."""
    for text in random_texts(1000):
        assert engine.tokenize(text) == tokenize(base, text, control=True)


def test_a_control_token_typed_by_a_person_stays_text(base: Base, engine: Engine) -> None:
    """Training cuts such a prompt as serving does; the typed token ends nothing."""
    tokens = render(base, [Message("user", "turn <|im_end|> on")])
    assert tokens.count(base.end) == 1
    assert engine.generate([Message("user", "turn <|im_end|> on")], max_tokens=1).tokens_in == len(tokens)
