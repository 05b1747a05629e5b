"""Every supported architecture: what transformers made is what training loads, what it trains is what is served."""

from pathlib import Path

import gguf
import pytest
import torch

from feedback.engine import Engine
from feedback.models import check_model
from feedback.trace import Trace
from learner.base import Base, load_base, render, tokenize
from learner.encode import encode_all
from learner.fitness import random_adapter, random_texts
from learner.lora import LoraSpec, attached
from learner.parity import check
from store.records import Message
from tests.learner import zoo
from tests.learner.conftest import example

TEXTS = ("hello world, what is 12345?", "a longer one: " + "turn on the light; " * 6)
ITEMS = [example("hello", "world"), example("what is 12?", "a dozen, 12"), example("h " * 40, "no")]


@pytest.fixture(scope="module", params=zoo.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One architecture after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def path(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model as float32."""
    return zoo.write(zoo.make(kind), kind, tmp_path_factory.mktemp(kind) / "float32.gguf")


@pytest.fixture(scope="module")
def base(path: Path) -> Base:
    """Its training base."""
    return load_base(check_model(path))


def test_training_loads_the_model_that_was_written(kind: str, base: Base) -> None:
    """Logits of the base read from GGUF are those of the transformers model it was written from."""
    tokens = torch.tensor([render(base, [Message("user", TEXTS[1])])])
    with torch.no_grad():
        assert torch.allclose(base.model(tokens).logits, zoo.make(kind)(tokens).logits, atol=1e-3)


def test_training_and_serving_compute_the_same(kind: str, path: Path, base: Base) -> None:
    """On float32, base and adapted, the largest logit difference is at most 5e-3."""
    with Engine(check_model(path), context=512) as engine:
        for weights in (None, random_adapter(base, size=0.1)):
            assert check(engine, base, weights, TEXTS).max_abs_logit_diff <= 5e-3


def test_quantised_training_and_serving_compute_the_same(kind: str, tmp_path: Path) -> None:
    """On Q8_0 under the same rounding, base and adapted, the largest logit difference is at most 0.05."""
    model = check_model(
        zoo.write(zoo.make(kind), kind, tmp_path / "q8.gguf", quantised=gguf.GGMLQuantizationType.Q8_0)
    )
    base, trace = load_base(model), Trace()
    with Engine(model, context=512, trace=trace) as engine:
        for weights in (None, random_adapter(base, size=0.1)):
            found = check(engine, base, weights, TEXTS, trace=trace)
            assert found.max_abs_logit_diff <= 0.05


def test_both_tokenisers_agree(path: Path, base: Base) -> None:
    """Digits, spaces and other scripts give the same tokens in transformers and llama.cpp."""
    with Engine(check_model(path), context=512) as engine:
        for text in [*random_texts(100), "1234567 89", "a1b22 333"]:
            assert engine.tokenize(text) == tokenize(base, text, control=True)


@pytest.mark.parametrize("private", [False, True])
def test_the_fast_step_has_pefts_gradients(base: Base, private: bool) -> None:
    """In float32, summed or per example, relative to each matrix's norm."""
    items = encode_all(base, ITEMS, max_tokens=512)
    found: list[list[torch.Tensor]] = []
    for fast in (False, True):
        with attached(base, LoraSpec(freeze_a=private), start=random_adapter(base, size=0.1)) as held:
            if fast:
                held.per_example() if private else held.hasten(torch.float32)
            answers = held.answers(items)
            (answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
            whole = fast and private
            found.append([p.grad_sample.sum(0) if whole else p.grad for p in held.parameters()])
    assert all((ours - theirs).norm() <= 1e-3 * theirs.norm() for theirs, ours in zip(*found, strict=True))
