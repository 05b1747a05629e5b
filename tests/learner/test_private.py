"""Private training: what one correction can do is bounded, noise is always added, and neighbours look alike."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus import GradSampleModule

from feedback.models import check_model, embedded_model
from learner.base import Base, load_base
from learner.encode import encode_all
from learner.fast import private_dtype
from learner.lora import LoraSpec, LoraWeights, attached, fresh
from learner.noise import total_norm
from learner.private import PrivateSpec, example_gradient_norm, train_private
from store.errors import IntegrityError
from store.records import Example, Message

SPEC = PrivateSpec(
    clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=0.5, steps=2, divisor=8.0, learning_rate=1.0,
    rank=4, alpha=8.0, seed_a=7, layers=99,
)  # fmt: skip


@pytest.fixture(scope="module")
def base() -> Base:
    """The embedded model, as training sees it."""
    return load_base(check_model(embedded_model()))


@pytest.fixture(scope="module")
def start(base: Base) -> LoraWeights:
    """A shared adapter that has learned nothing yet."""
    return fresh(LoraSpec(SPEC.rank, SPEC.alpha, SPEC.seed_a), base.geometry)


def example(prompt: str, answer: str, *, share: bool = True) -> Example:
    """One correction."""
    return Example(messages=(Message("user", prompt),), answer=answer, rejected="?", share=share)


def some(count: int) -> list[Example]:
    """`count` different corrections."""
    return [example(f"movie time in room {n}", f'light.dim(room="room {n}", level="20%")') for n in range(count)]


ODD = [
    "", "x", "\U0001f600" * 40, "a" * 300, "ZQ" * 90, '{"k": [1, 2, 3]}' * 6, "\t\n  ", "9" * 120, "light.set()",
    "éß漢字" * 20,
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
def test_no_example_however_odd_moves_the_sum_by_more_than_the_clipping_norm(
    base: Base, start: LoraWeights, answer: str
) -> None:
    """Sensitivity: after clipping, one example's gradient has norm at most C(1 + 1e-5)."""
    norm = example_gradient_norm(base, example("do it", answer), SPEC, start)
    assert 0 < norm <= SPEC.clipping_norm * (1 + 1e-5)


def test_clipping_is_what_bounds_it(base: Base, start: LoraWeights) -> None:
    """The check above can fail: with a hundred times the bound, the same example's norm exceeds C."""
    loose = replace(SPEC, clipping_norm=100 * SPEC.clipping_norm)
    assert example_gradient_norm(base, example("do it", "ZQ" * 90), loose, start) > SPEC.clipping_norm


def test_with_no_examples_the_result_is_noise_of_the_public_size(base: Base, start: LoraWeights) -> None:
    """Empty batches still add noise and count: the change is Gaussian with the deviation public figures give."""
    delta = train_private(base, [], SPEC, start=start)
    flat = np.concatenate([array.ravel() for array in delta.b.values()])
    expected = SPEC.learning_rate * SPEC.noise_multiplier * SPEC.clipping_norm / SPEC.divisor * SPEC.steps**0.5
    assert flat.std() == pytest.approx(expected, rel=0.03)
    assert abs(flat.mean()) < 5 * expected / flat.size**0.5


@pytest.mark.parametrize("count", [0, 1, 112])
def test_neighbouring_data_sets_run_the_same_mechanism_and_give_the_same_shape(
    base: Base, start: LoraWeights, count: int
) -> None:
    """N and N + 1 corrections: same spec, same shapes, same public step; nothing tells how many there were."""
    few, more = (train_private(base, some(n), SPEC, start=start) for n in (count, count + 1))
    assert few.spec == more.spec == SPEC
    assert {path: array.shape for path, array in few.b.items()} == {path: a.shape for path, a in more.b.items()}


def test_without_noise_to_speak_of_it_learns_in_the_direction_of_the_corrections(
    base: Base, start: LoraWeights
) -> None:
    """The signal is there: with negligible noise the change is far from zero and repeatable in direction."""
    quiet = replace(SPEC, noise_multiplier=1e-6, sampling_rate=1.0)
    first, second = (train_private(base, some(8), quiet, start=start) for _ in range(2))
    dot = sum(float((first.b[path] * second.b[path]).sum()) for path in first.b)
    assert dot / (total_norm(list(first.b.values())) * total_norm(list(second.b.values()))) > 0.999


def test_corrections_marked_never_share_leave_no_trace(base: Base, start: LoraWeights) -> None:
    """With negligible noise, a run over private corrections alone is a run over nothing."""
    quiet = replace(SPEC, noise_multiplier=1e-6, sampling_rate=1.0)
    secret = [example("my doctor", "calendar.add()", share=False)] * 5
    signal = total_norm(list(train_private(base, some(5), quiet, start=start).b.values()))
    assert total_norm(list(train_private(base, secret, quiet, start=start).b.values())) < 1e-3 * signal


def test_a_gradient_that_is_not_finite_stops_the_run(base: Base, start: LoraWeights) -> None:
    """NaN in the weights gives NaN gradients: refused, nothing returned."""
    broken = LoraWeights(start.a, {path: np.full_like(b, np.nan) for path, b in start.b.items()}, start.alpha)
    with pytest.raises(IntegrityError):
        train_private(base, some(3), replace(SPEC, sampling_rate=1.0), start=broken)


def test_per_example_gradients_equal_those_of_opacus(base: Base, start: LoraWeights) -> None:
    """The fast backward pass and Opacus' hooks on PEFT give the same gradient of B for each example."""
    items = encode_all(base, some(5), max_tokens=512)
    moved = LoraWeights(start.a, {path: b + 0.01 for path, b in start.b.items()}, start.alpha)
    found: list[list[torch.Tensor]] = []
    for opacus in (False, True):
        with attached(base, LoraSpec(4, 8.0, 7, freeze_a=True), start=moved) as held:
            hooks = GradSampleModule(held.peft, loss_reduction="sum") if opacus else held.per_example()
            answers = held.answers(items)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                (-answers.log_probs()[:, 0] * answers.weights).sum().backward()
            found.append([parameter.grad_sample for parameter in held.parameters()])
            if hooks is not None:
                hooks.remove_hooks()
    for ours, theirs in zip(*found, strict=True):
        off = (ours - theirs).flatten(1).norm(dim=1)
        assert (off <= 1e-4 * theirs.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_examples_gradient_does_not_depend_on_its_batch(base: Base, start: LoraWeights, dtype: torch.dtype) -> None:
    """Bit for bit the same beside other companions, so that one example moves the sum by its own gradient alone."""
    if private_dtype(dtype) is not dtype:
        pytest.skip(f"this machine's {dtype} products depend on their batch, so private training does not use them")
    moved = LoraWeights(start.a, {path: b + 0.01 for path, b in start.b.items()}, start.alpha)
    found: list[list[torch.Tensor]] = []
    items = encode_all(base, [*some(7), example("do it", "a" * 80)], max_tokens=512)
    with attached(base, LoraSpec(4, 8.0, 7, freeze_a=True), start=moved) as held:
        held.per_example(dtype)
        for batch in (items[:1], items[:4], items):
            answers = held.answers(batch)
            (-answers.log_probs()[:, 0] * answers.weights).sum().backward()
            found.append([parameter.grad_sample[0].clone() for parameter in held.parameters()])
    alone, *others = found
    assert all(torch.equal(one, two) for other in others for one, two in zip(alone, other, strict=True))


def test_the_base_comes_back_untouched(base: Base, start: LoraWeights) -> None:
    """After a private run no adapter and no hook is left in the model."""
    names = [name for name, _ in base.model.named_modules()]
    train_private(base, some(2), SPEC, start=start)
    assert [name for name, _ in base.model.named_modules()] == names
    assert not any(module._forward_hooks or module._backward_hooks for module in base.model.modules())


def test_only_the_first_layers_learn_when_the_spec_says_so(base: Base, start: LoraWeights) -> None:
    """Fewer layers, fewer numbers to add noise to; the others are neither trained nor returned."""
    delta = train_private(base, some(3), replace(SPEC, layers=1), start=start)
    assert delta.b
    assert all(path.startswith("model.layers.0.") for path in delta.b)
    assert not any(weight.requires_grad for weight in base.model.parameters())
