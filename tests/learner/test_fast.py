"""The faster step computes what PEFT's does."""

import pytest
import torch

from learner.base import Base, head, hidden_states
from learner.lora import LoraSpec, attached
from tests.learner.conftest import random_adapter

TOKENS = torch.arange(60).reshape(3, 20) + 300


def _gradients(base: Base, dtype: torch.dtype | None, *, under: bool) -> dict[str, torch.Tensor]:
    """Gradients of a fixed loss, by PEFT's own step when `dtype` is None."""
    below = random_adapter(base, seed=5) if under else None
    with attached(base, LoraSpec(), start=random_adapter(base), under=below) as held:
        if dtype is not None:
            held.hasten(dtype)
        log_probs = torch.log_softmax(head(base, hidden_states(base, TOKENS)), -1)
        log_probs[..., 5].sum().backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in held.peft.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("under", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
def test_gradients_equal_those_of_peft(base: Base, dtype: torch.dtype, tolerance: float, under: bool) -> None:
    """Per matrix, relative to its norm: float32 but for the order of sums, bfloat16 within its rounding."""
    wanted, got = _gradients(base, None, under=under), _gradients(base, dtype, under=under)
    assert set(got) == set(wanted)
    for name, gradient in wanted.items():
        assert (got[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-6
