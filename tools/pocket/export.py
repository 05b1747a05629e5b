"""Writes the trained network and its tokeniser as one GGUF file: Q8_0 matrices, float32 norms.

llama.cpp serves the file and transformers loads weights and tokeniser from it; there is no second format.
"""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tools.pocket.model import Shape
from tools.pocket.tokenizer import CHAT_TEMPLATE, SPECIAL, Vocabulary

LICENSE = "apache-2.0"


def write_gguf(
    path: Path, title: str, weights: dict[str, Tensor], shape: Shape, vocabulary: Vocabulary, *, quantized: bool = True
) -> None:
    """Writes the file beside `path` first and moves it into place, so that no reader sees half of it.

    `weights` carry the names of `LlamaForCausalLM`; `quantized=False` keeps every tensor in float32.
    """
    temporary = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(str(temporary), "llama")
    writer.add_name(title)
    _describe(writer, shape, quantized)
    _add_tokenizer(writer, vocabulary)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    for source, tensor in weights.items():
        name = f"{names.get_name(source.removesuffix('.weight'))}.weight"
        _add_tensor(writer, name, source, tensor, shape, quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def _describe(writer: gguf.GGUFWriter, shape: Shape, quantized: bool) -> None:
    writer.add_license(LICENSE)
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([control if token in SPECIAL else normal for token in vocabulary.tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_eos_token_id(SPECIAL.index("<|im_end|>"))
    writer.add_pad_token_id(SPECIAL.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensor(writer: gguf.GGUFWriter, name: str, source: str, tensor: Tensor, shape: Shape, quantized: bool) -> None:
    values: NDArray[np.float32] = tensor.contiguous().numpy()
    if source.endswith(("q_proj.weight", "k_proj.weight")):
        values = _interleaved(values, shape.heads)
    if quantized and values.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, np.ascontiguousarray(values))


def _interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from the half-split order of transformers to the pairwise order of llama.cpp's rope."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
