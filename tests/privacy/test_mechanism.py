"""Private training as a whole: neighbours, odd examples, and a change that reaches what is served."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from federation.update import Expected, privatise
from feedback.engine import Engine
from feedback.models import ModelFile, check_model, embedded_model
from learner.base import Base, load_base
from learner.export import to_gguf
from learner.lora import LoraSpec, LoraWeights, fresh
from learner.private import PrivateSpec, SystemNoiseOptimizer, train_private
from store.errors import IntegrityError
from store.records import Example, Message, digest
from tests.federation.desk import make_spec
from tools.audit.checks import SPEC as SMALL

SPEC = PrivateSpec(
    clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=0.02, steps=1, divisor=8.0, learning_rate=1.0,
    rank=2, alpha=4.0, seed_a=7, layers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> ModelFile:
    """The embedded model file."""
    return check_model(embedded_model())


@pytest.fixture(scope="module")
def base(model: ModelFile) -> Base:
    """The embedded model, as training sees it."""
    return load_base(model)


@pytest.fixture(scope="module")
def start(base: Base) -> LoraWeights:
    """A shared adapter that has learned nothing yet."""
    return fresh(LoraSpec(SPEC.rank, SPEC.alpha, SPEC.seed_a), base.geometry)


def some(count: int, length: int = 1) -> list[Example]:
    """`count` different corrections."""
    return [
        Example(messages=(Message("user", f"dim {n}" * length),), answer="music.stop()", rejected="?")
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 112, 500])
def test_neighbours_send_messages_of_one_length_made_by_one_mechanism(
    base: Base, start: LoraWeights, count: int
) -> None:
    """N and N + 1 corrections, through real training: same rate, steps, divisor and header, same number of bytes."""
    found = [train_private(base, some(n), SPEC, start=start) for n in (count, count + 1)]
    assert found[0].spec == found[1].spec == SPEC
    layout = tuple((path, array.shape[0], SPEC.rank) for path, array in sorted(found[0].b.items()))
    spec = make_spec(**{name: getattr(SPEC, name) for name in SPEC.__dataclass_fields__})
    expected = Expected(digest(b"base"), digest(b"release"), 1, spec, layout)
    messages = [privatise(delta, expected).encode() for delta in found]
    assert len(messages[0]) == len(messages[1]) == expected.size
    assert messages[0][:112] == messages[1][:112]


def test_an_example_longer_than_the_limit_or_the_context_is_left_out(base: Base, start: LoraWeights) -> None:
    """A run over one of them alone is a run over nothing, whatever limit the order names."""
    quiet = replace(SPEC, noise_multiplier=1e-6, sampling_rate=1.0, max_tokens=1_000_000)
    moved = train_private(base, some(1, length=4000), quiet, start=start)
    norm = float(np.sqrt(sum(np.square(array).sum() for array in moved.b.values())))
    assert norm < 1e-3 * quiet.learning_rate * quiet.clipping_norm / quiet.divisor


def test_a_gradient_that_is_not_finite_adds_nothing_and_stops_nothing() -> None:
    """NaN and infinite rows count as zero, row by row; the others are summed as if they were alone."""
    weights = torch.nn.Parameter(torch.zeros(3))
    plain = torch.optim.SGD([weights], lr=1.0)
    bound = SMALL.clipping_norm
    optimizer = SystemNoiseOptimizer(plain, noise_multiplier=1.0, max_grad_norm=bound, expected_batch_size=1.0)
    bad = [[float("nan"), 0.0, 0.0], [float("inf"), 1.0, 0.0], [0.0, 0.0, float("-inf")]]
    weights.grad_sample = torch.tensor([*bad, [3.0, 4.0, 0.0]])
    optimizer.accumulate()
    assert weights.summed_grad.tolist() == pytest.approx([0.3, 0.4, 0.0], abs=1e-5)


def test_a_start_that_is_not_finite_is_refused(base: Base, start: LoraWeights) -> None:
    """Before anything is drawn or computed."""
    broken = LoraWeights(start.a, {path: np.full_like(b, np.inf) for path, b in start.b.items()}, start.alpha)
    with pytest.raises(IntegrityError):
        train_private(base, some(1), SPEC, start=broken)


def test_a_run_whose_gradients_do_not_arrive_is_refused(base: Base, start: LoraWeights) -> None:
    """With A at zero nothing can reach B: noise would move the weights, and the run would look fine from outside."""
    deaf = LoraWeights({path: np.zeros_like(a) for path, a in start.a.items()}, start.b, start.alpha)
    with pytest.raises(IntegrityError) as refused:
        train_private(base, some(1), SPEC, start=deaf)
    assert refused.value.code == "trained_into_nothing"


def test_what_a_private_run_learned_changes_what_llama_cpp_serves(
    model: ModelFile, base: Base, start: LoraWeights
) -> None:
    """The change, exported and served, moves the served log-probabilities of a public answer."""
    loud = replace(SPEC, sampling_rate=1.0, steps=2, noise_multiplier=0.5)
    delta = train_private(base, some(4), loud, start=start)
    moved = LoraWeights(start.a, {**start.b, **{path: start.b[path] + b for path, b in delta.b.items()}}, start.alpha)
    data = to_gguf(moved, base.geometry, model.digest)
    with Engine(model, context=256) as engine:
        before = engine.score((Message("user", "dim 1"),), "music.stop()")
        engine.set_stack([(digest(data), data)])
        after = engine.score((Message("user", "dim 1"),), "music.stop()")
    assert before != after
