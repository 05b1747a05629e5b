"""Old skills are spared, and come back, by public pairs alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from federation.mend import Mender, mender
from federation.probe import probe_set
from federation.standard import standard_plan
from feedback.models import check_model, embedded_model
from learner.base import load_base
from learner.export import to_gguf
from learner.lora import LoraSpec, LoraWeights, fresh

NOISE = 0.35  # of B, enough to cost the model several points


@pytest.fixture(scope="module")
def keeper() -> Mender:
    """What keeps the embedded model's old skills."""
    model = check_model(embedded_model())
    spec = standard_plan(model, load_base(model).geometry, rounds=3, devices=3, epsilon=8.0).spec
    made = mender(model.path, spec)
    assert made is not None
    return made


def _clean(keeper: Mender, rank: int) -> LoraWeights:
    """An adapter that changes nothing."""
    return fresh(LoraSpec(rank, 2.0 * rank, 1, freeze_a=True), keeper.base.geometry)


def _noisy(clean: LoraWeights) -> LoraWeights:
    """The same with noise in every B."""
    rng = np.random.default_rng(0)
    return replace(clean, b={path: rng.normal(0, NOISE, b.shape).astype(np.float32) for path, b in clean.b.items()})


@contextmanager
def _points(keeper: Mender) -> Iterator[Callable[[LoraWeights], float]]:
    """Points of an adapter on pairs that only judge."""
    with probe_set(embedded_model(), 100) as probes:
        yield lambda weights: probes(to_gguf(weights, keeper.base.geometry, keeper.base.digest))["skills"]


def test_mending_brings_back_points_on_pairs_it_never_saw(keeper: Mender) -> None:
    """A noisy adapter loses points on the judging pairs; mended, it has a fifth of them back or more. A stays."""
    clean = _clean(keeper, 4)
    noisy = _noisy(clean)
    mended = keeper.mend(noisy)
    with _points(keeper) as points:
        before, lost, back = points(clean), points(noisy), points(mended)
    assert before - lost > 5
    assert back - lost > (before - lost) / 5
    assert all(np.array_equal(mended.a[path], noisy.a[path]) for path in noisy.a)


def test_sparing_costs_fewer_points_than_shrinking_as_much(keeper: Mender) -> None:
    """With sensitive directions damped, a change of the same length loses less than half as many points."""
    clean = _clean(keeper, 2)
    noise = _noisy(clean).b
    learning = {path: noise[path] for path in keeper.sensitivity.factors}
    spared = keeper.spare(learning)
    share = np.sqrt(sum(float(np.square(b).sum()) for b in spared.values()))
    share /= np.sqrt(sum(float(np.square(b).sum()) for b in learning.values()))
    shorter = {path: np.float32(share) * b for path, b in learning.items()}
    with _points(keeper) as points:
        costs = [points(clean) - points(replace(clean, b={**clean.b, **b})) for b in (spared, shorter)]
    assert 0 <= costs[0] < costs[1] / 2
