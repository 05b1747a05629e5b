"""A transformers model filled from a mapped GGUF, tensor by tensor.

transformers' own reader dequantises the whole file to float32 first, 4 bytes a weight. Here the network is built
without storage and each tensor goes straight into the type that training multiplies, or stays in the file. Settings,
and the order of rows that llama.cpp's converter changed, are transformers' business still.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from learner.blocks import BlockLinear, Blocks, mapped
from learner.int8 import rounded
from learner.recipe import Hold


def network_over(transformers: Any, config: Any, path: Path, dtype: torch.dtype, hold: Hold) -> Any:  # noqa: ANN401
    """Return a causal model whose weights, rounded to `dtype`, are those of the file at `path`.

    Args:
        hold: how to hold the matrices of the decoder's linears; everything else is made dense.
    Raises:
        ValueError: the file lacks a tensor, or one has another shape.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    decoder = network.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config)  # its table is in no file
    processor = reader.TENSOR_PROCESSORS.get(config.model_type, reader.TensorProcessor)(config=config.to_dict())
    tensors, names = mapped(path), _names(config)
    for place, _ in list(network.named_parameters()):
        owner, _, end = place.rpartition(".")
        name = f"{names.get_name(owner)}.{end}"
        if name in tensors:
            order = processor.process(weights=tensors[name].order, name=name).weights
            _put(network, place, tensors[name].ordered(np.ascontiguousarray(order)), dtype, hold)
    network.tie_weights()
    if any(one.is_meta for one in (*network.parameters(), *network.buffers())):
        raise ValueError("a tensor is missing")
    return network


def _names(config: Any) -> gguf.TensorNameMap:  # noqa: ANN401
    """GGUF's names of modules; transformers' own map asks for this table once per module, seconds for a small model."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    return gguf.get_tensor_name_map(arch, config.num_hidden_layers)


def _put(network: Any, place: str, blocks: Blocks, dtype: torch.dtype, hold: Hold) -> None:  # noqa: ANN401
    """Have `blocks` be the parameter called `place`; a linear's in the decoder are held as told."""
    path, _, name = place.rpartition(".")
    module = network.get_submodule(path)
    shape = getattr(module, name).shape
    if (*blocks.shape, 1)[: len(shape)] != shape:
        raise ValueError("a tensor has another shape")
    if hold in ("int8", "blocks") and isinstance(module, torch.nn.Linear) and name == "weight" and ".layers." in path:
        held = blocks if hold == "blocks" else rounded(blocks.dense(torch.float32))
        network.set_submodule(path, BlockLinear(held, module.bias, dtype))
    else:
        setattr(module, name, torch.nn.Parameter(blocks.dense(dtype).view(shape), requires_grad=False))
