"""The faster step computes what PEFT's does."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from feedback.models import ModelFile, probe_pairs
from learner.base import Base, condense, load_base
from learner.encode import Encoded, encode_all
from learner.fitness import random_adapter
from learner.lora import LoraSpec, attached
from learner.packed import parts
from tests.learner.conftest import example

Found = tuple[torch.Tensor, dict[str, torch.Tensor]]  # log-probabilities, gradients


@pytest.fixture(scope="module")
def items(base: Base, model: ModelFile) -> list[Encoded]:
    """Examples of several lengths."""
    pairs = probe_pairs(model.path)[:12]
    return encode_all(base, [example(prompt * (1 + n % 3), answer) for n, (prompt, answer) in enumerate(pairs)],
                      max_tokens=512)  # fmt: skip


@pytest.fixture
def use() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _step(
    base: Base, items: list[Encoded], dtype: torch.dtype | None, *, under: bool, recompute: bool = False
) -> Found:
    """Log-probabilities of the answers and gradients of their weighted sum, by PEFT's own step when `dtype` is None."""
    below = random_adapter(base, seed=5) if under else None
    with attached(base, LoraSpec(), start=random_adapter(base), under=below) as held:
        if dtype is not None:
            held.hasten(dtype, recompute=recompute)
        answers = held.answers(items)
        log_probs = answers.log_probs()
        (log_probs[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
        return log_probs.detach(), {name: p.grad for name, p in held.peft.named_parameters() if p.grad is not None}


def _error(found: Found, wanted: Found) -> float:
    """Largest error of a matrix's gradient relative to its norm."""
    assert set(found[1]) == set(wanted[1])
    return max(float((found[1][name].float() - g).norm() / g.norm()) for name, g in wanted[1].items() if g.any())


@pytest.mark.parametrize("under", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_equal_those_of_peft(base: Base, items: list[Encoded], recompute: bool, under: bool) -> None:
    """In float32 but for the order of sums, with an adapter underneath and without, kept or recomputed."""
    wanted = _step(base, items, None, under=under)
    found = _step(base, items, torch.float32, under=under, recompute=recompute)
    assert (found[0] - wanted[0]).abs().max() <= 1e-4
    assert _error(found, wanted) <= 1e-4


def test_bfloat16_errs_less_than_peft_in_bfloat16(base: Base, model: ModelFile, items: list[Encoded]) -> None:
    """Against float32: what is lost is bfloat16's rounding."""
    wanted = _step(base, items, None, under=False)
    rounded = load_base(model)
    rounded.model.to(torch.bfloat16)
    ours = _error(_step(base, items, torch.bfloat16, under=False), wanted)
    assert 0 < ours < _error(_step(rounded, items, None, under=False), wanted)


def test_a_compact_base_errs_no_more_and_is_held_once(base: Base, model: ModelFile, items: list[Encoded]) -> None:
    """Its matrices become views of the fused ones, with the same values."""
    wanted = _step(base, items, None, under=False)
    compact = load_base(model)
    condense(replace(compact, fast_dtype=torch.bfloat16))
    before = [parameter.clone() for parameter in compact.model.parameters()]
    ours = _error(_step(compact, items, torch.bfloat16, under=False), wanted)
    assert 0 < ours < 1.2 * _error(_step(base, items, torch.bfloat16, under=False), wanted)
    assert all(torch.equal(one, two) for one, two in zip(compact.model.parameters(), before, strict=True))
    with attached(compact, LoraSpec()) as held:
        held.hasten(torch.bfloat16)
        attention = compact.model.get_decoder().layers[0].self_attn
        storages = {one.base_layer.weight.untyped_storage().data_ptr() for one in (attention.q_proj, attention.v_proj)}
        assert len(storages) == 1


@pytest.mark.parametrize("per_example", [False, True])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(
    base: Base, items: list[Encoded], per_example: bool, use: Callable[[int], None]
) -> None:
    """Each of two threads goes through its part; summed or example by example, it is the same."""
    found = []
    for threads in (1, 2):
        use(threads)
        assert len(parts(items, threads)) == threads
        with attached(base, LoraSpec(freeze_a=per_example), start=random_adapter(base)) as held:
            held.per_example() if per_example else held.hasten(torch.float32)
            answers = held.answers(items)
            (answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
            found.append([p.grad_sample if per_example else p.grad for p in held.parameters()])
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*found, strict=True))


def test_items_come_back_in_their_order(base: Base, items: list[Encoded]) -> None:
    """Packing sorts by length; answers do not show it."""
    with attached(base, LoraSpec(), start=random_adapter(base)) as held:
        held.hasten(torch.float32)
        answers = held.answers(items)
        assert answers.targets.tolist() == [token for item in items for token in item.tokens[item.answer_from :]]
        alone = torch.cat([held.answers([item]).log_probs() for item in items])
        assert torch.allclose(answers.log_probs(), alone, atol=1e-4)
