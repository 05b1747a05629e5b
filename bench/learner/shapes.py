"""What is trained on in the benchmark: the embedded model, and a random one of a common small shape."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, condense, fastest_hold, geometry_of, load_base
from learner.blocks import BlockLinear, Blocks
from learner.encode import Encoded, encode_all
from learner.fast import fastest_dtype
from learner.mapped import network_over
from learner.recipe import Hold
from store.records import Example, Message
from tests.learner import zoo

LENGTHS = (60, 75, 88, 100, 118, 130, 149, 160)  # tokens of the random model's examples
ANSWER = 30  # of them predicted


def embedded(dtype: torch.dtype, hold: Hold) -> tuple[Base, list[Encoded]]:
    """The shipped model and 16 of its probe pairs, of middling length."""
    model = check_model(embedded_model())
    base = load_base(model, hold="float32" if hold == "compact" else hold)
    pairs = probe_pairs(model.path)
    examples = [Example(messages=(Message("user", prompt),), answer=answer, rejected="") for prompt, answer in pairs]
    found = sorted(encode_all(base, examples, max_tokens=512), key=lambda item: len(item.tokens))
    if hold == "compact":
        condense(replace(base, fast_dtype=dtype))
    middle = len(found) // 2
    return base, found[middle - 64 : middle + 64 : 8]


def smol(dtype: torch.dtype, hold: Hold) -> tuple[Base, list[Encoded]]:
    """135 million random weights in the shape of SmolLM (30 layers, 576 wide, 9 heads on 3), and 8 random examples."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    hold = fastest_hold(config.hidden_size, dtype) if hold == "fast" else hold
    model = model.to(dtype) if hold == "compact" else _filed(model, dtype, hold)
    base = Base(model, None, None, "", geometry_of(model, "llama"), 2, fastest_dtype())  # type: ignore[arg-type]
    return base, items(config.vocab_size)


def items(words: int) -> list[Encoded]:
    """Examples of random tokens."""
    rng = np.random.default_rng(0)
    return [
        Encoded(str(n), tuple(rng.integers(0, words, length).tolist()), length - ANSWER, (1 / ANSWER,) * ANSWER, False)
        for n, length in enumerate(LENGTHS)
    ]


def filed(base: Base) -> list[np.ndarray]:
    """Return the bytes of every matrix that `base` holds as blocks, or as whole numbers."""
    held = [one.blocks for one in base.model.modules() if isinstance(one, BlockLinear)]
    return [one.rows if isinstance(one, Blocks) else one.numbers.numpy() for one in held]


def _filed(model: Any, dtype: torch.dtype, hold: Hold) -> Any:  # noqa: ANN401 - transformers is untyped
    """The same model over a file of Q8_0, which is gone when the process is."""
    kind = gguf.GGMLQuantizationType.Q8_0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for name, weight in zoo.tensors(model, "llama"):
            data = weight if weight.ndim == 1 else gguf.quants.quantize(weight, kind)
            writer.add_tensor(name, data, raw_dtype=None if weight.ndim == 1 else kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return network_over(transformers, model.config, path, dtype, hold).eval().requires_grad_(False)
