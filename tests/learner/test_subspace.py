"""The public subspace: the same for everybody, orthonormal, close to the weights' leading directions."""

import numpy as np
import pytest

from feedback.models import check_model, embedded_model
from learner.base import Base, load_base
from learner.lora import LoraWeights
from learner.subspace import Subspace, cached_subspace, subspace


@pytest.fixture(scope="module")
def base() -> Base:
    """The embedded model, as training sees it."""
    return load_base(check_model(embedded_model()))


@pytest.fixture(scope="module")
def space(base: Base) -> Subspace:
    """Four directions a linear."""
    return subspace(base, 4, 7)


def test_the_factors_are_orthonormal(base: Base, space: Subspace) -> None:
    """A has orthonormal rows, U orthonormal columns, in the shapes of the base."""
    for path, (out, wide) in base.geometry.shapes.items():
        assert (space.a[path].shape, space.u[path].shape) == ((4, wide), (out, 4))
        assert np.allclose(space.a[path] @ space.a[path].T, np.eye(4), atol=1e-5)
        assert np.allclose(space.u[path].T @ space.u[path], np.eye(4), atol=1e-5)


def test_they_hold_more_of_the_weight_than_chance(base: Base, space: Subspace) -> None:
    """Most of what the best four directions hold, and far more than four random ones would."""
    for path in base.geometry.shapes:
        weight = base.model.get_submodule(path).weight.detach().numpy()
        held = np.square(weight @ space.a[path].T).sum()
        best = np.square(np.linalg.svd(weight, compute_uv=False)[:4]).sum()
        assert 0.85 * best < held <= best * (1 + 1e-5)


def test_everybody_computes_the_same_and_another_seed_is_noticed(base: Base, space: Subspace) -> None:
    """Recomputed factors hold; those of another seed, or trained ones, do not."""
    again, other = subspace(base, 4, 7), subspace(base, 4, 8)
    assert again.holds(space.empty(8.0))
    assert not again.holds(other.empty(8.0))
    path = next(iter(space.a))
    trained = LoraWeights({**space.a, path: space.a[path] + 0.01}, space.empty(8.0).b, 8.0)
    assert not again.holds(trained)
    assert cached_subspace(base)(4, 7).holds(space.empty(8.0))


def test_a_core_moves_b_inside_the_subspace(space: Subspace) -> None:
    """B changes by U M, and by nothing else."""
    cores = {path: np.full((4, 4), 0.5, np.float32) for path in space.u}
    moved = space.moved(space.empty(8.0), cores)
    for path, u in space.u.items():
        assert np.allclose(u.T @ moved.b[path], 0.5, atol=1e-5)
        assert np.allclose(u @ (u.T @ moved.b[path]), moved.b[path], atol=1e-5)
