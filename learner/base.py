"""The base model as training sees it: the very GGUF that llama.cpp serves, read by transformers.

One file is both the served model and the training base, so tokenizer, template and weights cannot drift apart.
Does not fetch anything: transformers is told so before it is imported, which is the one place outside `cli`
and `store.paths` that touches the environment. Does not adapt anything: LoRA is `lora`'s business.
"""

import functools
import mmap
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from feedback.gguf_header import read_header
from feedback.models import ModelFile
from feedback.template import ChatTemplate
from learner.conditions import starved
from learner.fast import fastest_dtype, int8_is_faster
from learner.int8 import COARSE, WIDTH, coarseness
from learner.mapped import network_over
from learner.recipe import Hold
from store.errors import IntegrityError, UsageError
from store.records import Message

FAMILY = frozenset({"llama", "qwen2", "qwen3", "phi3"})  # transformers' model types that `lean` knows
_TEXT = "Turn on the kitchen light, please. Milk, bread and 12 eggs at 7:45; the quick brown fox jumps over a lazy dog."
_COMPARED: tuple[Hold, Hold] = ("int8", "blocks")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """What an adapter must fit: architecture, heads, and the shape [out, in] of every adapted linear."""

    architecture: str  # GGUF name, e.g. "llama"
    layers: int
    heads: int
    kv_heads: int
    shapes: dict[str, tuple[int, int]]  # module path -> (out features, in features)


@dataclass(frozen=True, slots=True)
class Base:
    """A frozen base model with its tokenizer and template; never trained itself."""

    model: Any  # transformers PreTrainedModel in eval mode, held as `load_base` was told
    tokenizer: Any
    template: ChatTemplate
    digest: str  # tagged hash of the GGUF
    geometry: Geometry
    end: int  # token that ends an answer
    fast_dtype: torch.dtype  # of the multiplications in training; measured when loaded


def load_base(model: ModelFile, *, threads: int = 1, hold: Hold = "float32") -> Base:
    """Load weights and tokenizer of `model` for training on `threads` CPU threads.

    Args:
        hold: how to hold the weights; an architecture that `lean` does not know is held as float32 anyway.
    Returns: the base, gradients off.
    Raises:
        IntegrityError: transformers cannot read what llama.cpp can.
        MemoryError: there is not enough.
    """
    torch.set_num_threads(threads)
    transformers, dtype = _quiet_transformers(), fastest_dtype()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(model.path.parent), gguf_file=model.path.name)
            network = _network(transformers, model, hold, dtype, torch.tensor([tokenizer(_TEXT)["input_ids"]]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if starved(error):  # the file is sound
            raise MemoryError from None
        raise IntegrityError(
            f"The model file cannot be loaded for training ({type(error).__name__}).",
            hint="Check it with `corrigible doctor`, or choose another model.",
            code="model_unreadable",
        ) from None
    _split_digits(tokenizer, model)
    network.eval().requires_grad_(False)
    bos, eos = (tokenizer.special_tokens_map.get(f"{name}_token", "") for name in ("bos", "eos"))
    template = ChatTemplate(tokenizer.chat_template, bos=bos, eos=eos)
    geometry, end = geometry_of(network, model.architecture), _end(tokenizer, template)
    return Base(network, tokenizer, template, model.digest, geometry, end, dtype)


def fastest_hold(width: int, dtype: torch.dtype) -> Hold:
    """Return how this machine trains fastest on a base of `width` that it would multiply in `dtype` otherwise."""
    return "int8" if width >= WIDTH and int8_is_faster(dtype) else "compact"


def condense(base: Base) -> None:
    """Hold the base's weights in the type that training multiplies; buffers, such as the rotation's, stay float32."""
    for parameter in base.model.parameters():
        parameter.data = parameter.data.to(base.fast_dtype)


def render(base: Base, messages: Sequence[Message]) -> list[int]:
    """Return the prompt's tokens, ready for an answer; a control token written out by a person stays text.

    Cut where serving cuts it, so that training sees the tokens that serving sees.
    """
    if any(word in message.content for message in messages for word in base.tokenizer.all_special_tokens):
        pieces = base.template.segments(messages)
        return [token for text, typed in pieces for token in tokenize(base, text, control=not typed)]
    return tokenize(base, base.template.render(messages), control=True)


def tokenize(base: Base, text: str, *, control: bool = False) -> list[int]:
    """Return the tokens of `text`; control tokens written out in it are read as such only when `control`."""
    encoded = base.tokenizer(text, add_special_tokens=False, split_special_tokens=not control)
    return list(encoded["input_ids"])


def hidden_states(base: Base, tokens: torch.Tensor) -> torch.Tensor:
    """Return the decoder's output [batch, length, width] for `tokens` [batch, length], padded on the right.

    No attention mask: under a causal mask a pad on the right is never seen by what stands before it.
    """
    output: torch.Tensor = base.model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    return output


def head(base: Base, hidden: torch.Tensor) -> torch.Tensor:
    """Return logits [..., vocabulary] of `hidden` [..., width], soft-capped where the architecture does so."""
    logits: torch.Tensor = base.model.get_output_embeddings()(hidden)
    cap = getattr(base.model.config, "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)


def _network(
    transformers: Any, model: ModelFile, hold: Hold, dtype: torch.dtype, tokens: torch.Tensor  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """The model with the file's weights, held as told; `dtype` is what training multiplies, `tokens` are text."""
    folder, name = str(model.path.parent), model.path.name
    if hold != "float32":
        config = transformers.AutoConfig.from_pretrained(folder, gguf_file=name)
        if config.model_type in FAMILY:
            if hold != "fast":
                return network_over(transformers, config, model.path, dtype, hold)
            if fastest_hold(config.hidden_size, dtype) == "int8":
                network, exact = (network_over(transformers, config, model.path, dtype, way) for way in _COMPARED)
                if coarseness(network.get_decoder(), exact.get_decoder(), tokens) <= COARSE:
                    return network
            return network_over(transformers, config, model.path, dtype, "compact")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)


def _split_digits(tokenizer: Any, model: ModelFile) -> None:  # noqa: ANN401
    """Cut text as SmolLM's vocabulary wants it, each digit by itself: transformers' GGUF reader does not know it."""
    from tokenizers import pre_tokenizers

    with model.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cut = read_header(data).text("tokenizer.ggml.pre")
    if cut == "smollm":
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)


def _quiet_transformers() -> Any:  # noqa: ANN401 - a module
    """Import transformers offline, without warnings or progress bars."""
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    import transformers
    from transformers import modeling_gguf_pytorch_utils as gguf_loader

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not isinstance(gguf_loader.tqdm, functools.partial):
        gguf_loader.tqdm = functools.partial(gguf_loader.tqdm, disable=True)
    return transformers


def _end(tokenizer: Any, template: ChatTemplate) -> int:  # noqa: ANN401
    """The token the template writes after an answer where that is a control token, else the end of text."""
    after = tokenizer(template.after_answer(), add_special_tokens=False)["input_ids"]
    control = set(tokenizer.all_special_ids)
    return int(after[0]) if after and after[0] in control else int(tokenizer.eos_token_id)


def geometry_of(network: Any, architecture: str) -> Geometry:  # noqa: ANN401
    """Return what an adapter of a transformers model must fit: every linear inside the decoder layers.

    Raises:
        UsageError: there is none.
    """
    config = network.config
    shapes = {
        path: (module.out_features, module.in_features)
        for path, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in path
    }
    if not shapes:
        raise UsageError(f"Architecture {architecture} has no layers that can be adapted.", code="architecture")
    heads = int(config.num_attention_heads)
    return Geometry(
        architecture, int(config.num_hidden_layers), heads,
        int(getattr(config, "num_key_value_heads", None) or heads), shapes,
    )
