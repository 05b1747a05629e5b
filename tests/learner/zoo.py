"""Small random models of every supported architecture, made by transformers and written as GGUF."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.feedback.micro import MERGES, SPECIAL, TEMPLATE, finished, vocabulary

SMALL: dict[str, Any] = {
    "vocab_size": len(vocabulary()), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SMOL = {**SMALL, "hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True}
GEMMA = {**SMALL, "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 256,
         "sliding_window": 32}  # fmt: skip
KINDS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMALL),
    "smollm": (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMOL),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config, SMALL),
    "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config, {**SMALL, "head_dim": 128}),
    "gemma2": (transformers.Gemma2ForCausalLM, transformers.Gemma2Config, GEMMA),
    "gemma3": (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig, GEMMA),
    "phi3": (transformers.Phi3ForCausalLM, transformers.Phi3Config, SMALL),
}

Quantised = gguf.GGMLQuantizationType | Sequence[gguf.GGMLQuantizationType]


def make(kind: str, **changes: Any) -> Any:  # noqa: ANN401
    """Return a random model of `kind`, every weight and bias and norm of its own value."""
    torch.manual_seed(7)
    network, config, sizes = KINDS[kind]
    model = network(config(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter.shape[1] ** 0.5)
        model.tie_weights()
    return model


def write(model: Any, kind: str, path: Path, quantised: Quantised = gguf.GGMLQuantizationType.F32) -> Path:  # noqa: ANN401
    """Write `model` as llama.cpp's converter would; matrices as `quantised`, several types in turn."""
    config, architecture = model.config, "llama" if kind == "smollm" else kind
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type("model")
    writer.add_name("zoo")  # llama.cpp expects certain tokens of some names
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base({"gemma3": 1e6}.get(kind, 1e4))
    writer.add_key_length(head)
    writer.add_value_length(head)
    if kind.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    _add_words(writer, "smollm" if kind == "smollm" else "qwen2")
    types = cycle([quantised] if isinstance(quantised, gguf.GGMLQuantizationType) else quantised)
    for name, weight in tensors(model, architecture):
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            one = next(types)
            writer.add_tensor(name, gguf.quants.quantize(weight, one), raw_dtype=one)
    path.write_bytes(finished(writer))
    return path


def _add_words(writer: gguf.GGUFWriter, pre: str) -> None:
    """Vocabulary and template of the micro models."""
    words = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types([3 if word in SPECIAL else 1 for word in words])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)


def tensors(model: Any, architecture: str) -> list[tuple[str, np.ndarray]]:  # noqa: ANN401
    """GGUF names and values: q and k in llama.cpp's order for Llama, Gemma's norms with their 1."""
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = []
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = value.numpy().astype(np.float32)
        path, _, end = name.rpartition(".")
        if architecture == "llama" and path.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if path.endswith("q_proj") else config.num_key_value_heads
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        if architecture.startswith("gemma") and "norm" in path:
            weight = weight + 1
        found.append((f"{table.get_name(path)}.{end}", np.ascontiguousarray(weight)))
    return found
