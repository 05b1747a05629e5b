"""Attaching, extracting and the public A."""

import hashlib

import numpy as np
import pytest
import torch

from learner.base import Base, head, hidden_states
from learner.fitness import random_adapter
from learner.lora import LoraSpec, LoraWeights, attached, extract, fresh, public_a, require_fit
from store.errors import IntegrityError

TOKENS = torch.arange(40).reshape(2, 20) + 300


def _logits(base: Base) -> torch.Tensor:
    with torch.no_grad():
        return head(base, hidden_states(base, TOKENS))


def test_the_base_comes_back_untouched(base: Base) -> None:
    """After an adapter was in it, the base computes bit for bit what it did before."""
    before = _logits(base)
    with attached(base, LoraSpec(), start=random_adapter(base)):
        assert not torch.equal(_logits(base), before)
    assert torch.equal(_logits(base), before)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_fresh_adapter_changes_nothing(base: Base) -> None:
    """B starts at zero."""
    before = _logits(base)
    with attached(base, LoraSpec(seed=7)):
        assert torch.equal(_logits(base), before)


def test_what_goes_in_comes_out(base: Base) -> None:
    """Attach and extract are inverse."""
    weights = random_adapter(base)
    with attached(base, LoraSpec(), start=weights) as held:
        out = extract(held)
    assert all(np.array_equal(out.a[path], weights.a[path]) for path in weights.a)
    assert all(np.array_equal(out.b[path], weights.b[path]) for path in weights.b)


def test_an_adapter_underneath_counts_and_does_not_learn(base: Base) -> None:
    """Shared below plus empty above computes what shared alone does; only the upper one has gradients."""
    shared = random_adapter(base)
    with attached(base, LoraSpec(), start=shared):
        alone = _logits(base)
    with attached(base, LoraSpec(), under=shared) as held:
        assert torch.allclose(_logits(base), alone, atol=1e-5)
        assert len(held.parameters()) == 2 * len(base.geometry.shapes)


def test_the_reference_is_the_model_without_the_own_adapter(base: Base) -> None:
    """Inside `reference` the own adapter is off, afterwards it is on again."""
    before = _logits(base)
    with attached(base, LoraSpec(), start=random_adapter(base)) as held:
        adapted = _logits(base)
        with held.reference():
            assert torch.equal(_logits(base), before)
        assert torch.equal(_logits(base), adapted)


def test_only_b_learns_when_a_is_frozen(base: Base) -> None:
    """FFA-LoRA: half the parameters."""
    with attached(base, LoraSpec(freeze_a=True)) as held:
        assert len(held.parameters()) == len(base.geometry.shapes)


def test_the_public_a_is_the_same_on_every_machine(base: Base) -> None:
    """A known hash pins the generator for ever: releases rest on it."""
    path = "model.layers.0.self_attn.q_proj"
    geometry = type(base.geometry)("llama", 1, 4, 4, {path: (64, 64)})
    drawn = public_a(LoraSpec(rank=2, seed=42), geometry)[path]
    assert np.abs(drawn).max() <= 1 / 8
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "eef0624fbcd7da25"
    assert not np.array_equal(drawn, public_a(LoraSpec(rank=2, seed=43), geometry)[path])


def test_an_adapter_for_another_base_is_refused(base: Base) -> None:
    """Missing layers or other widths are an integrity error, before anything is attached."""
    good = fresh(LoraSpec(), base.geometry)
    path = next(iter(good.a))
    fewer = LoraWeights({path: good.a[path]}, {path: good.b[path]}, good.alpha)
    wider = LoraWeights({**good.a, path: np.zeros((8, 7), np.float32)}, good.b, good.alpha)
    for wrong in (fewer, wider):
        with pytest.raises(IntegrityError):
            require_fit(wrong, base.geometry)
