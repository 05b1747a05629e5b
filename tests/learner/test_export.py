"""Adapters as canonical GGUF bytes."""

import numpy as np
import pytest

from feedback.engine import Engine
from learner.base import Base
from learner.export import from_gguf, to_gguf
from learner.fitness import random_adapter
from learner.lora import LoraWeights
from store.errors import IntegrityError
from store.records import digest


def test_weights_survive_the_round_trip_exactly(base: Base) -> None:
    """Float32 in, the same float32 out, and the same bytes again."""
    weights = random_adapter(base)
    data = to_gguf(weights, base.geometry, base.digest)
    back = from_gguf(data, base.geometry, base.digest)
    assert back.alpha == weights.alpha
    assert all(np.array_equal(back.b[path], weights.b[path]) for path in weights.b)
    assert to_gguf(back, base.geometry, base.digest) == data


def test_a_number_that_is_not_finite_is_refused(base: Base) -> None:
    """NaN never reaches a file."""
    weights = random_adapter(base)
    path = next(iter(weights.b))
    broken = LoraWeights(weights.a, {**weights.b, path: np.full_like(weights.b[path], np.nan)}, weights.alpha)
    with pytest.raises(IntegrityError):
        to_gguf(broken, base.geometry, base.digest)


def test_another_base_is_refused(base: Base) -> None:
    """The file names its base and is not read for another."""
    data = to_gguf(random_adapter(base), base.geometry, base.digest)
    with pytest.raises(IntegrityError, match="another base"):
        from_gguf(data, base.geometry, digest(b"other"))


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -1])
def test_a_cut_file_is_refused(base: Base, keep: int) -> None:
    """Truncation anywhere is noticed."""
    data = to_gguf(random_adapter(base), base.geometry, base.digest)
    with pytest.raises(IntegrityError):
        from_gguf(data[:keep], base.geometry, base.digest)


def test_anything_but_the_canonical_form_is_refused(base: Base) -> None:
    """Trailing bytes would give one adapter two names."""
    data = to_gguf(random_adapter(base), base.geometry, base.digest)
    with pytest.raises(IntegrityError, match="canonical"):
        from_gguf(data + bytes(32), base.geometry, base.digest)


def test_llama_cpp_loads_what_is_written(base: Base, engine: Engine) -> None:
    """The served path accepts the bytes, and they change its answers' probabilities."""
    tokens = engine.tokenize("turn on the light")
    engine.set_stack([])
    plain = engine.logits(tokens)
    data = to_gguf(random_adapter(base), base.geometry, base.digest)
    engine.set_stack([(digest(data), data)])
    assert np.abs(engine.logits(tokens) - plain).max() > 1e-3
