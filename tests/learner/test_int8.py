"""Multiplying whole numbers of 8 bits: what it errs by, that rows stay apart, and which bases are held so."""

from pathlib import Path

import pytest
import torch
from gguf.constants import GGMLQuantizationType as Q

from feedback.engine import Engine
from feedback.models import ModelFile, check_model, probe_pairs
from learner.base import Base, load_base
from learner.encode import encode_all
from learner.export import to_gguf
from learner.fast import int8_is_faster, private_dtype
from learner.fitness import random_adapter
from learner.int8 import WIDTH, Int8, joined, rounded
from learner.judge import score_known
from learner.lora import LoraSpec, attached
from learner.recipe import Hold, Recipe
from learner.train import train
from store.records import digest
from tests.learner import zoo
from tests.learner.conftest import example

FAMILY = [kind for kind in zoo.KINDS if not kind.startswith("gemma")]
ITEMS = [example("hello", "world"), example("what is 12?", "a dozen, 12"), example("h " * 40, "no")]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, rows of very different sizes."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random) * 10 ** torch.linspace(-3, 3, shape[0])[:, None]


def _gradients(base: Base, *, under: bool = False, private: bool = False) -> list[torch.Tensor]:
    """Gradients of one step."""
    below = random_adapter(base, seed=5) if under else None
    with attached(base, LoraSpec(freeze_a=private), start=random_adapter(base), under=below) as held:
        held.per_example(base.fast_dtype) if private else held.hasten(base.fast_dtype)
        answers = held.answers(encode_all(base, ITEMS, max_tokens=512))
        (answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
        learned = (one.grad_sample if private else one.grad for one in held.parameters())
        return [one.clone() for one in learned if one is not None]


def _flat(found: list[torch.Tensor]) -> torch.Tensor:
    """All numbers, in float64."""
    return torch.cat([one.flatten().double() for one in found])


def _is_int8(base: Base) -> bool:
    """Whether the decoder's linears are."""
    found = {isinstance(getattr(base.model.get_submodule(path), "blocks", None), Int8) for path in base.geometry.shapes}
    assert len(found) == 1
    return found.pop()


@pytest.fixture(scope="module", params=FAMILY)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A model of every architecture that trains fast."""
    path = tmp_path_factory.mktemp(request.param) / "model.gguf"
    return check_model(zoo.write(zoo.make(request.param), request.param, path, quantised=Q.Q8_0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_off_by_the_rounding_alone(dtype: torch.dtype) -> None:
    """Exact for what was rounded, and that is within half a step of what it was, in every row."""
    weight, x, by = _random(70, 300), _random(90, 300, seed=1).to(dtype), torch.rand(300)
    for matrix, operand in ((weight, None), (x, by)):
        small = rounded(matrix, operand)
        wanted = matrix.float() if operand is None else matrix * operand
        assert ((small.dense(torch.float32) - wanted).abs() <= 0.5001 * small.scale).all()
        assert torch.allclose(small.scale[:, 0] * 127, wanted.abs().amax(1))
    held, small = rounded(weight), rounded(x, by)
    near = {"rtol": 1e-2 if dtype is torch.bfloat16 else 1e-5, "atol": 0.0}
    exact = (small.numbers.double() @ held.numbers.double().t()) * small.scale * held.scale.t()
    assert torch.allclose(held.times(x, by).double(), exact, **near)
    grad = _random(90, 70, seed=2).to(dtype)
    small = rounded(grad, held.scale.t())
    exact = (small.numbers.double() @ held.numbers.double()) * small.scale * by
    assert torch.allclose(held.back(grad, by).double(), exact, **near)


def test_a_row_depends_on_no_other() -> None:
    """Bit for bit, so that an example cannot move another's gradient."""
    held, x, grad = rounded(_random(700, 600)), _random(900, 600, seed=1), _random(900, 700, seed=2)
    for rows in (1, 7, 64, 333):
        assert torch.equal(held.times(x[:rows]), held.times(x)[:rows])
        assert torch.equal(held.back(grad[:rows]), held.back(grad)[:rows])


def test_what_is_not_finite_stays_so_and_zeros_stay_zeros() -> None:
    """A loss that is NaN must end a training, not vanish in rounding."""
    held = rounded(torch.randn(5, 40))
    x = torch.zeros(3, 40)
    x[0, 3], x[1, 4] = torch.nan, torch.inf
    y = held.times(x)
    assert not y[:2].isfinite().any()
    assert not y[2].any()


def test_matrices_above_each_other_are_cut_without_a_copy() -> None:
    """As q, k and v are."""
    parts = [rounded(_random(rows, 64, seed=rows)) for rows in (8, 4, 4)]
    whole = joined(parts)
    assert whole.shape == (16, 64)
    assert torch.equal(whole[8:12].dense(torch.float32), parts[1].dense(torch.float32))
    assert whole[8:12].numbers.untyped_storage().data_ptr() == whole.numbers.untyped_storage().data_ptr()


@pytest.mark.parametrize(("under", "private"), [(False, False), (True, False), (False, True)])
def test_gradients_point_where_those_of_float32_do(file: ModelFile, under: bool, private: bool) -> None:
    """Random small networks measured 0.988 to 0.999."""
    wanted = _flat(_gradients(load_base(file), under=under, private=private))
    base = load_base(file, hold="int8")
    assert _is_int8(base)
    found = _flat(_gradients(base, under=under, private=private))
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.97


def test_the_embedded_model_learns_as_much(model: ModelFile) -> None:
    """The loss after some steps on a few corrections, against that of a base held dense."""
    pairs = [example(*pair) for pair in probe_pairs(model.path)[:24]]
    wanted = [example(one.messages[0].content, "no idea") for one in pairs[:8]]
    recipe = Recipe(batch=8, min_steps=12, max_steps=12, passes=12)

    def losses(hold: Hold) -> list[float]:
        told: list[float] = []
        train(load_base(model, hold=hold), wanted, pairs[8:], recipe, progress=lambda *step: told.append(step[2]))
        return told

    first, *_, last = losses("int8")
    assert last < 0.5 * first
    assert last == pytest.approx(losses("compact")[-1], rel=0.2)


def test_what_a_wide_base_learned_is_served(tmp_path: Path) -> None:
    """Unseen requests get the answer exactly, through llama.cpp."""
    made = zoo.make("llama", hidden_size=WIDTH, num_hidden_layers=1)
    path = zoo.write(made, "llama", tmp_path / "model.gguf", quantised=Q.Q8_0)
    model, asked = check_model(path), [example(f"hello {number}", "a dozen, 12") for number in range(30)]
    base = load_base(model, hold="int8")
    learned = train(base, asked[:20], (), Recipe(batch=10, min_steps=20, max_steps=20))
    data = to_gguf(learned, base.geometry, base.digest)
    with Engine(model) as engine:
        assert not any(score.exact for score in score_known(engine, asked[20:]))
        engine.set_stack([(digest(data), data)])
        assert all(score.exact for score in score_known(engine, asked[20:]))


def test_an_examples_gradient_does_not_depend_on_its_batch(model: ModelFile) -> None:
    """Bit for bit the same beside other companions, as private training needs it."""
    base = load_base(model, hold="int8")
    found = []
    items = encode_all(base, ITEMS, max_tokens=512)
    with attached(base, LoraSpec(freeze_a=True), start=random_adapter(base)) as held:
        held.per_example(private_dtype(base.fast_dtype))
        for batch in (items[:1], items):
            answers = held.answers(batch)
            (answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
            found.append([parameter.grad_sample[0].clone() for parameter in held.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_base_is_held_once(model: ModelFile) -> None:
    """Its linears' numbers become views of the fused ones, however often an adapter is put in."""
    base = load_base(model, hold="int8")
    attention = base.model.get_decoder().layers[0].self_attn
    before = attention.v_proj.blocks.dense(torch.float32)
    for _ in range(2):
        with attached(base, LoraSpec()) as held:
            held.hasten(base.fast_dtype)
    assert torch.equal(attention.v_proj.blocks.dense(torch.float32), before)
    storages = {one.blocks.numbers.untyped_storage().data_ptr() for one in (attention.q_proj, attention.v_proj)}
    assert len(storages) == 1


@pytest.mark.parametrize(("width", "faster", "wanted"), [(WIDTH, True, True), (WIDTH, False, False), (64, True, False)])
def test_only_wide_bases_on_machines_that_gain_are_held_so(
    width: int, faster: bool, wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held in a floating type otherwise, and where that was asked for."""
    monkeypatch.setattr("learner.base.int8_is_faster", lambda dtype: faster)
    made = zoo.make("llama", hidden_size=width, num_hidden_layers=1)
    path = zoo.write(made, "llama", tmp_path / "model.gguf", quantised=Q.Q8_0)
    assert _is_int8(load_base(check_model(path), hold="fast")) is wanted
    assert not any(_is_int8(load_base(check_model(path), hold=hold)) for hold in ("compact", "blocks"))


def test_a_base_that_rounding_changes_much_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number a thousand times the others leaves them few steps; it is measured on the base itself."""
    monkeypatch.setattr("learner.base.int8_is_faster", lambda dtype: True)
    made = zoo.make("llama", hidden_size=WIDTH, num_hidden_layers=1)
    with torch.no_grad():
        made.get_decoder().layers[0].input_layernorm.weight[3] = 1000.0
    path = zoo.write(made, "llama", tmp_path / "model.gguf", quantised=Q.Q8_0)
    assert not _is_int8(load_base(check_model(path), hold="fast"))


@pytest.mark.parametrize(("times", "wanted"), [(2.0, True), (1.6, True), (1.4, False), (0.2, False)])
def test_the_machines_speed_decides(times: float, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding has its price, so that being a little faster is not enough."""
    monkeypatch.setattr("learner.fast._seconds", lambda dtype: 1.0 if dtype is torch.int8 else times)
    assert int8_is_faster.__wrapped__(torch.bfloat16) is wanted
