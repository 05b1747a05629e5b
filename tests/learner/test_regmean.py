"""Holding an adapter to what the base knows: the formula, what is counted, and what it does to a real adapter."""

import numpy as np
import pytest
import torch

from learner import regmean
from learner.base import Base
from learner.encode import encode_all
from learner.fitness import random_adapter
from learner.lora import LoraSpec, LoraWeights, attached
from learner.regmean import RIDGE, Moments, moments, restrained
from store.records import Example
from tests.learner.conftest import ROOMS, example, habit

HABITS = [example(*habit(room)) for room in ROOMS]
KNOWN = [example(f"turn on the {room} light", f'light.set(room="{room}", state="on")', rejected=None) for room in ROOMS]


def test_the_merged_adapter_minimises_what_is_asked(base: Base) -> None:
    """The gradient of the two terms, with C's ridge, is zero at W' = B A'."""
    weights, restraint = random_adapter(base), 0.3
    h, c = moments(base, HABITS, max_tokens=512), moments(base, KNOWN, max_tokens=512)
    assert h is not None
    assert c is not None
    found = restrained(weights, h, c, restraint)
    for path in list(weights.a)[::5]:
        b, size = weights.b[path].astype(float), len(c.of[path])
        ridge = RIDGE * np.diag(c.of[path]).mean() * np.eye(size)
        pull = b @ (found.a[path] - weights.a[path]) @ h.of[path]
        push = b @ found.a[path] @ (restraint * c.of[path] + ridge)
        assert np.abs(pull + push).max() <= 1e-4 * np.abs(push).max()


def test_pads_and_the_size_of_a_pass_do_not_count(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of several lengths, together or one by one, and summed here by hand for one linear."""
    examples = [*HABITS[:3], example("film " * 30, "music.stop()")]
    together = moments(base, examples, max_tokens=512)
    monkeypatch.setattr(regmean, "_BATCH", 1)
    alone = moments(base, examples, max_tokens=512)
    assert together is not None
    assert alone is not None
    for path, moment in together.of.items():
        assert np.allclose(moment, alone.of[path], atol=1e-4 * np.abs(moment).max())
    path = next(iter(base.geometry.shapes))
    layer = base.model.get_decoder().layers[0]
    with torch.no_grad():
        tokens = torch.tensor([token for item in encode_all(base, examples, max_tokens=512) for token in item.tokens])
        x = layer.input_layernorm(base.model.get_decoder().embed_tokens(tokens))
    assert np.allclose(together.of[path], (x.t() @ x / len(x)).numpy(), atol=1e-3)


def test_old_skills_move_less_than_what_was_learned(base: Base) -> None:
    """A random adapter, held tightly, changes answers to the base's own requests far less than those to the owner's."""
    h, c = moments(base, HABITS, max_tokens=512), moments(base, KNOWN, max_tokens=512)
    assert h is not None
    free = random_adapter(base)
    kept = restrained(free, h, c, 1.0)

    def moved(examples: list[Example], weights: LoraWeights) -> float:
        items = encode_all(base, examples, max_tokens=512)
        with attached(base, LoraSpec(), start=weights) as held, torch.no_grad():
            after = held.answers(items).log_probs()
            with held.reference():
                return float((after - held.answers(items).log_probs()).abs().mean())

    left = {name: moved(examples, kept) / moved(examples, free) for name, examples in (("own", HABITS), ("old", KNOWN))}
    assert left["old"] < 0.8 * left["own"]


def test_wide_linears_are_held_by_their_diagonal(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number per input; without skills of the base to hold, every input is held alike."""
    monkeypatch.setattr(regmean, "WIDEST", 8)
    h = moments(base, HABITS[:2], max_tokens=512)
    assert h is not None
    weights = random_adapter(base)
    found = restrained(weights, h, None, 1.0)
    for path, moment in h.of.items():
        assert moment.ndim == 1
        factor = moment / (moment + (1 + RIDGE) * moment.mean())
        assert np.allclose(found.a[path], weights.a[path] * factor, rtol=1e-4)
    assert found.b == weights.b


def test_nothing_short_enough_gives_nothing(base: Base) -> None:
    """No moment of no example."""
    assert moments(base, HABITS, max_tokens=4) is None
    assert Moments({}).of == {}
