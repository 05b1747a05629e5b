"""Makes models of a few thousand random weights and adapters for them, as real GGUF files in every architecture."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import gguf
import numpy as np

from feedback.gguf_header import read_header

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w")


@dataclass(frozen=True)
class Shape:
    """Sizes of a micro model."""

    architecture: str = "llama"
    width: int = 64
    heads: int = 2
    layers: int = 2
    inner: int = 96
    context: int = 256
    words: int = 0  # more tokens in the vocabulary
    seed: int = 0


def bytes_as_text() -> list[str]:
    """The 256 bytes as byte-level BPE writes them: printable ones as themselves, the others moved up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte if byte in plain else next(moved)) for byte in range(256)]


def vocabulary(more: int = 0) -> list[str]:
    """Tokens of the micro models: special ones, bytes, merged ones, `more` that only a model writes."""
    return [*SPECIAL, *bytes_as_text(), *(merge.replace(" ", "") for merge in MERGES), *(f"w{i}" for i in range(more))]


def tensors(shape: Shape) -> dict[str, np.ndarray]:
    """Random weights, [out, in] as torch has them, under GGUF names."""
    random = np.random.default_rng(shape.seed)
    width, inner = shape.width, shape.inner

    def matrix(out: int, into: int) -> np.ndarray:
        return (random.standard_normal((out, into)) * 2 / np.sqrt(into)).astype(np.float32)

    ones, head = np.ones(width, np.float32), np.ones(width // shape.heads, np.float32)
    size = len(vocabulary(shape.words))
    made = {"token_embd": matrix(size, width), "output": matrix(size, width)}
    if shape.architecture == "gemma2":
        del made["output"]
    made["output_norm"] = ones
    for i in range(shape.layers):
        layer = {name: matrix(width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        layer |= {"ffn_gate": matrix(inner, width), "ffn_up": matrix(inner, width), "ffn_down": matrix(width, inner)}
        layer |= {"attn_norm": ones, "ffn_norm": ones}
        if shape.architecture == "phi3":
            layer["attn_qkv"] = np.concatenate([layer.pop(f"attn_{x}") for x in "qkv"])
            layer["ffn_up"] = np.concatenate([layer.pop("ffn_gate"), layer["ffn_up"]])
        if shape.architecture in ("gemma2", "gemma3"):
            layer |= {"post_attention_norm": ones, "post_ffw_norm": ones}
        if shape.architecture in ("qwen3", "gemma3"):
            layer |= {"attn_q_norm": head, "attn_k_norm": head}
        made |= {f"blk.{i}.{name}": value for name, value in layer.items()}
    made = {f"{name}.weight": value for name, value in made.items()}
    if shape.architecture == "qwen2":
        made |= {f"blk.{i}.attn_{x}.bias": 0 * ones for i in range(shape.layers) for x in "qkv"}
    return made


def write_model(path: Path, shape: Shape, *, template: str | None = TEMPLATE) -> Path:
    """Write a micro model to `path`."""
    writer = gguf.GGUFWriter(None, shape.architecture)
    writer.add_type("model")
    writer.add_name("micro")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    if shape.architecture in ("gemma2", "gemma3"):
        writer.add_key_length(shape.width // shape.heads)
        writer.add_value_length(shape.width // shape.heads)
        writer.add_sliding_window(32)
    words = vocabulary(shape.words)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in SPECIAL else 1 for word in words])
    writer.add_token_merges(list(MERGES))
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in tensors(shape).items():
        writer.add_tensor(name, value)
    path.write_bytes(finished(writer))
    return path


def adapter(model: Path, *, rank: int = 2, scale: float = 1.0, seed: int = 1) -> bytes:
    """Return a random LoRA adapter on every matrix of the model's layers, as GGUF bytes."""
    random = np.random.default_rng(seed)
    header = read_header(model.read_bytes())
    writer = adapter_writer(str(header.text("general.architecture")), alpha=float(rank))
    for name, tensor in header.tensors.items():
        if len(tensor.shape) == 2 and name.startswith("blk."):
            into, out = tensor.shape
            a, b = random.standard_normal((rank, into)), random.standard_normal((out, rank))
            writer.add_tensor(f"{name}.lora_a", (a / np.sqrt(into)).astype(np.float32))
            writer.add_tensor(f"{name}.lora_b", (b * scale).astype(np.float32))
    return finished(writer)


def adapter_writer(architecture: str, *, alpha: float) -> gguf.GGUFWriter:
    """Return the start of a LoRA adapter, still without matrices."""
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    return writer


def finished(writer: gguf.GGUFWriter) -> bytes:
    """Return everything the writer holds as the bytes of a file."""
    with TemporaryFile() as file:
        writer.fout, writer.state = [file], gguf.gguf_writer.WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        file.seek(0)
        return file.read()
