"""A base held as its file's blocks trains, bit for bit, as the same base held dense, in less memory."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from feedback.models import ModelFile, check_model, probe_pairs
from learner.base import Base, condense, hidden_states, load_base
from learner.blocks import BlockLinear, mapped, matrix
from learner.encode import Encoded, encode_all
from learner.fitness import random_adapter
from learner.lora import LoraSpec, attached
from learner.recipe import Hold, Recipe
from learner.regmean import moments
from learner.train import train
from store.errors import IntegrityError
from tests.learner import zoo
from tests.learner.conftest import example

Q = GGMLQuantizationType
WIDE = 512  # a whole number of blocks of every type
FAMILY = [kind for kind in zoo.KINDS if not kind.startswith("gemma")]
ITEMS = [example("hello", "world"), example("what is 12?", "a dozen, 12"), example("h " * 40, "no")]
MIXED = [Q.Q4_0, Q.Q5_0, Q.F16, Q.Q8_0, Q.Q4_1, Q.BF16, Q.Q5_1]  # of the linears of a layer, in turn


def known() -> list[GGMLQuantizationType]:
    """Every type that gguf makes dense."""
    return [kind for kind in Q if kind in (Q.F32, Q.F16) or kind in gguf.quants._type_traits]


def stored(kind: GGMLQuantizationType, rows: int = 70) -> np.ndarray:
    """Rows of a matrix as a file holds them: quantised where gguf can, else bytes that make finite numbers."""
    random = np.random.default_rng(0)
    try:
        weights = random.standard_normal((rows, WIDE)).astype(np.float32)
        return np.asarray(gguf.quants.quantize(weights, kind)).view(np.uint8)
    except NotImplementedError:
        block, size = GGML_QUANT_SIZES[kind]
        bytes_ = random.integers(0, 256, (2 * rows, WIDE // block * size), dtype=np.uint8)
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(gguf.quants.dequantize(bytes_, kind)).all(1)
        return np.ascontiguousarray(bytes_[finite][:rows])


def written(path: Path, kind: GGMLQuantizationType, data: np.ndarray) -> Path:
    """A file with one tensor."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("one.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", known(), ids=lambda kind: kind.name)
def test_every_type_gives_ggufs_numbers(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    """In float32 and rounded, in the file's order and in another."""
    data = stored(kind)
    wanted = torch.from_numpy(np.array(gguf.quants.dequantize(data, kind)))
    assert torch.isfinite(wanted).all()
    blocks = mapped(written(tmp_path / "one.gguf", kind, data))["one.weight"]
    assert blocks.shape == wanted.shape
    order = np.random.default_rng(1).permutation(len(wanted))
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(blocks.dense(dtype), wanted.to(dtype))
        assert torch.equal(blocks.ordered(order).dense(dtype), wanted[order].to(dtype))


def test_a_matrix_larger_than_what_is_made_at_once_is_whole(tmp_path: Path) -> None:
    """The pieces meet."""
    data = stored(Q.Q8_0, rows=1100)
    blocks = mapped(written(tmp_path / "one.gguf", Q.Q8_0, data))["one.weight"]
    assert torch.equal(blocks.dense(torch.float32), torch.from_numpy(gguf.quants.dequantize(data, Q.Q8_0)))


def _held(model: ModelFile, hold: Hold, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A base for a machine that multiplies `dtype` fastest."""
    monkeypatch.setattr("learner.base.fastest_dtype", lambda: dtype)
    return load_base(model, hold=hold)


def _dense(model: ModelFile, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Base:
    """The base as transformers' own reader has it, rounded."""
    base = _held(model, "float32", dtype, monkeypatch)
    condense(base)
    return base


def _gradients(base: Base, items: list[Encoded], *, under: bool, private: bool = False) -> list[torch.Tensor]:
    """Log-probabilities of a step and its gradients."""
    below = random_adapter(base, seed=5, size=0.1) if under else None
    with attached(base, LoraSpec(freeze_a=private), start=random_adapter(base, size=0.1), under=below) as held:
        held.per_example(base.fast_dtype) if private else held.hasten(base.fast_dtype)
        answers = held.answers(items)
        log_probs = answers.log_probs()
        (log_probs[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
        learned = (one.grad_sample if private else one.grad for one in held.parameters())
        return [log_probs.detach(), *(one.clone() for one in learned if one is not None)]


def _weights(network: torch.nn.Module) -> list[torch.Tensor]:
    """Every parameter in transformers' order, blocks made dense."""
    owners = [name.rpartition(".")[::2] for name, _ in network.named_parameters()]
    modules = [(network.get_submodule(path), name) for path, name in owners]
    return [matrix(one) if name == "weight" else getattr(one, name).detach() for one, name in modules]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What the machine multiplies fastest."""
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module", params=[*FAMILY, "mixed"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A model of every architecture that trains fast, its matrices as Q8_0; and a Llama of many types."""
    mixed = request.param == "mixed"
    kind = "llama" if mixed else request.param
    path = tmp_path_factory.mktemp(request.param) / "model.gguf"
    zoo.write(zoo.make(kind), kind, path, quantised=MIXED if mixed else Q.Q8_0)
    return check_model(path)


def test_blocks_and_compact_hold_what_transformers_reads(file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, weights and the rotation's table are equal, and the decoder's linears are blocks."""
    dtype = torch.bfloat16
    wanted = _dense(file, dtype, monkeypatch)
    for hold in ("compact", "blocks"):
        base = _held(file, hold, dtype, monkeypatch)
        assert base.geometry == wanted.geometry
        blocks = {path for path, one in base.model.named_modules() if isinstance(one, BlockLinear)}
        assert blocks == (set(base.geometry.shapes) if hold == "blocks" else set())
        names = [name for name, _ in wanted.model.named_parameters()]
        assert [name for name, _ in base.model.named_parameters()] == names
        pairs = zip(_weights(base.model), _weights(wanted.model), strict=True)
        assert all(one.dtype == dtype and torch.equal(one, two) for one, two in pairs)
        pairs = zip(base.model.buffers(), wanted.model.buffers(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


def test_a_step_over_blocks_gives_the_same_bits(
    file: ModelFile, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a shared adapter below and without, and example by example."""
    wanted, base = _dense(file, dtype, monkeypatch), _held(file, "blocks", dtype, monkeypatch)
    items = encode_all(base, ITEMS, max_tokens=512)
    for under, private in ((False, False), (True, False), (False, True)):
        ours = _gradients(base, items, under=under, private=private)
        theirs = _gradients(wanted, items, under=under, private=private)
        assert len(ours) > 1
        assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_the_plain_forward_gives_the_same_bits(file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holding an adapter to the base measures by transformers' own decoder, PEFT's layers included."""
    wanted, base = (_held(file, hold, torch.bfloat16, monkeypatch) for hold in ("compact", "blocks"))
    tokens = torch.arange(3, 60)[None]
    found = []
    for one in (wanted, base):
        with torch.no_grad(), attached(one, LoraSpec(), start=random_adapter(one)):
            found.append(hidden_states(one, tokens))
    assert torch.equal(*found)
    ours, theirs = (moments(one, ITEMS, max_tokens=512) for one in (base, wanted))
    assert ours is not None
    assert theirs is not None
    assert all(np.array_equal(ours.of[path], theirs.of[path]) for path in base.geometry.shapes)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_embedded_model_learns_the_same_bits(
    recompute: bool, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps with replay, reference and optimiser, everything kept or made again."""
    pairs = [example(*pair) for pair in probe_pairs(model.path)[:24]]
    recipe = Recipe(batch=8, min_steps=4, max_steps=4)
    found = []
    bases = (_dense(model, torch.bfloat16, monkeypatch), _held(model, "blocks", torch.bfloat16, monkeypatch))
    for base, again in zip(bases, (False, recompute), strict=True):
        found.append(train(base, pairs[:8], pairs[8:], recipe, recompute=again))
    for one, two in ((found[0].a, found[1].a), (found[0].b, found[1].b)):
        assert all(np.array_equal(one[path], two[path]) for path in one)


def test_an_architecture_that_does_not_train_fast_is_held_as_before(tmp_path: Path) -> None:
    """Gemma runs transformers' decoder over float32."""
    path = zoo.write(zoo.make("gemma2"), "gemma2", tmp_path / "gemma.gguf")
    base = load_base(check_model(path), hold="blocks")
    assert {one.dtype for one in base.model.parameters()} == {torch.float32}
    assert not any(isinstance(one, BlockLinear) for one in base.model.modules())


@pytest.mark.parametrize("hold", ["compact", "blocks"])
def test_a_file_that_lacks_a_tensor_is_refused(hold: Hold, tmp_path: Path) -> None:
    """Nothing is made up, as transformers' own reader would."""
    path = zoo.write(zoo.make("llama"), "llama", tmp_path / "whole.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_uq.weight"))
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        load_base(check_model(path), hold=hold)


MEMORY = """
import ctypes, gc, sys
from pathlib import Path
import torch
from feedback.models import check_model
from learner.base import load_base
from learner.encode import Encoded
from learner.lora import LoraSpec, attached

def resident(key):
    return int(Path("/proc/self/status").read_text().partition(key)[2].split()[0]) * 1024

def step(hold):
    base = load_base(model, hold=hold)
    with attached(base, LoraSpec()) as held:
        held.hasten(base.fast_dtype)
        held.answers([Encoded("", (3,) * 20, 10, (0.1,) * 10, False)]).log_probs().sum().backward()

def peak(hold):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts anew
    before = resident("VmRSS:")
    step(hold)
    return (resident("VmHWM:") - before) / model.weights

torch.set_num_threads(1)
model = check_model(Path(sys.argv[1]))
step("blocks")  # libraries that come late, and what they keep for these shapes
print(peak("blocks"), peak("compact"), peak("blocks"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for its high-water mark, as Linux tells it")
def test_a_base_in_blocks_needs_a_byte_a_weight_less(tmp_path: Path) -> None:
    """To load and for a step, by the kernel's count, the file's shared pages included; chance can only add to it."""
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6}
    path = zoo.write(zoo.make("llama", **sizes), "llama", tmp_path / "large.gguf", quantised=Q.Q8_0)
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    blocks, compact, again = (float(word) for word in done.stdout.split())
    assert min(blocks, again) + 1 < compact
