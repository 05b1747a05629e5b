"""What is trained on in the benchmark: the embedded model, and a random one of a common small shape."""

from dataclasses import replace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, condense, geometry_of, load_base
from learner.encode import Encoded, encode_all
from learner.fast import fastest_dtype
from store.records import Example, Message

LENGTHS = (60, 75, 88, 100, 118, 130, 149, 160)  # tokens of the random model's examples
ANSWER = 30  # of them predicted


def embedded(dtype: torch.dtype) -> tuple[Base, list[Encoded]]:
    """The shipped model and 16 of its probe pairs, of middling length."""
    model = check_model(embedded_model())
    base = load_base(model)
    pairs = probe_pairs(model.path)
    examples = [Example(messages=(Message("user", prompt),), answer=answer, rejected="") for prompt, answer in pairs]
    items = sorted(encode_all(base, examples, max_tokens=512), key=lambda item: len(item.tokens))
    condense(replace(base, fast_dtype=dtype))
    middle = len(items) // 2
    return base, items[middle - 64 : middle + 64 : 8]


def smol(dtype: torch.dtype) -> tuple[Base, list[Encoded]]:
    """135 million random weights in the shape of SmolLM (30 layers, 576 wide, 9 heads on 3), and 8 random examples."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False).to(dtype)
    base = Base(model, None, None, "", geometry_of(model, "llama"), 2, fastest_dtype())  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    items = [
        Encoded(str(n), tuple(rng.integers(0, 49152, length).tolist()), length - ANSWER, (1 / ANSWER,) * ANSWER, False)
        for n, length in enumerate(LENGTHS)
    ]
    return base, items
