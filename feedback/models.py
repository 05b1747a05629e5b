"""Which model files and adapters may be served, checked before llama.cpp opens them.

Finds the embedded model and the probe pairs beside a model. Loads no weights.
"""

import functools
import hashlib
import importlib.resources
import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from feedback.gguf_header import FLOAT32, STRING, Header, damaged, read_header
from store.errors import IntegrityError, UsageError
from store.records import HASH_TAG

SUPPORTED_ARCHITECTURES = ("gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3")
TOKENIZERS = ("gpt2", "llama")  # byte-level BPE, SentencePiece
FLOATS: dict[GGMLQuantizationType, np.dtype[Any]] = {
    GGMLQuantizationType.F32: np.dtype("<f4"),
    GGMLQuantizationType.F16: np.dtype("<f2"),
}

INT32 = 5
MAX_SIZE = 1 << 20  # of a width, a context, a vocabulary
MAX_LAYERS = 512
MAX_LORA_RANK = 1024


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that passed `check_model`; `digest` is the tagged SHA-256 of its bytes, `context` in tokens."""

    path: Path
    digest: str
    architecture: str
    name: str
    context: int
    weights: int  # numbers in its tensors


def embedded_model() -> Path:
    """Return the path of the model that ships with the package."""
    return Path(str(importlib.resources.files("feedback"))) / "pocket" / "pocket.gguf"


def check_model(path: Path) -> ModelFile:
    """Check the GGUF at `path` from end to end of its header and hash it; the result is kept until the file changes.

    Raises:
        UsageError: no such file, not readable (code ``model_missing``), or an architecture or tokenizer that is
            not supported (code ``model_unsupported``).
        IntegrityError: not a GGUF, truncated, or damaged.
    """
    try:
        path = path.resolve(strict=True)
        state = path.stat()
        return _checked(path, state.st_size, state.st_mtime_ns)
    except OSError:
        hint = "Give the path of a GGUF file that this user may read."
        raise UsageError(f"There is no readable model file {path.name}.", hint=hint, code="model_missing") from None


def probe_pairs(path: Path) -> list[tuple[str, str]]:
    """Return the (prompt, answer) pairs of the probe set beside the model at `path`; empty when there is none.

    It is named after the model, `name.gguf.probe.jsonl` or `name.probe.jsonl`; the embedded one's is `probe.jsonl`.

    Raises:
        IntegrityError: a line is not an object with the two strings; the message names its number.
    """
    names = ["probe.jsonl"] if path == embedded_model() else [f"{path.name}.probe.jsonl", f"{path.stem}.probe.jsonl"]
    beside = next((file for name in names if (file := path.with_name(name)).is_file()), None)
    return [] if beside is None else read_pairs(beside)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Return the (prompt, answer) pairs of a JSONL file.

    Raises:
        IntegrityError: a line is not an object with the two strings; the message names its number.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_pair(line, number, path.name) for number, line in enumerate(lines, 1) if line.strip()]


def check_adapter(data: bytes, architecture: str) -> None:
    """Check that `data` is a LoRA adapter in GGUF form for a base of `architecture`, every number in it finite.

    Whether its shapes fit the base is llama.cpp's to say.

    Raises:
        IntegrityError: it is none, is damaged, or was made for another architecture.
    """
    header = read_header(data)
    if (header.text("general.type"), header.text("adapter.type")) != ("adapter", "lora"):
        raise damaged("it is not a LoRA adapter")
    if header.text("general.architecture") != architecture:
        raise damaged("the adapter was made for another architecture")
    if header.float32("adapter.lora.alpha") is None or "adapter.alora.invocation_tokens" in header.metadata:
        raise damaged("the adapter's scale is missing or it is of another kind")
    _check_pairs(header)
    for tensor in header.tensors.values():
        numbers = np.frombuffer(data, FLOATS[tensor.kind], math.prod(tensor.shape), tensor.start)
        if not np.isfinite(numbers).all():
            raise damaged("the adapter holds numbers that are not finite")


def _check_pairs(header: Header) -> None:
    """Every adapted matrix has an A of shape [in, rank] and a B of shape [rank, out], as floats."""
    names = {name.removesuffix(end) for name in header.tensors for end in (".lora_a", ".lora_b") if name.endswith(end)}
    if not names or len(names) * 2 != len(header.tensors):
        raise damaged("the adapter's matrices do not come in pairs")
    for name in names:
        a, b = header.tensors.get(f"{name}.lora_a"), header.tensors.get(f"{name}.lora_b")
        if a is None or b is None or a.kind not in FLOATS or b.kind not in FLOATS:
            raise damaged("the adapter's matrices are of an unknown type")
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[0] or a.shape[1] > MAX_LORA_RANK:
            raise damaged("the adapter's matrices do not fit each other")


@functools.lru_cache(maxsize=64)
def _checked(path: Path, size: int, mtime_ns: int) -> ModelFile:
    """`check_model` for one state of the file; `mtime_ns` only tells states apart."""
    del mtime_ns
    if size == 0:
        raise damaged("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = read_header(data)
        architecture, context = _check_shape(header)
        _check_vocabulary(header)
        hashed = HASH_TAG + hashlib.sha256(data).hexdigest()
    weights = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    return ModelFile(path, hashed, architecture, header.text("general.name") or path.stem, context, weights)


def _check_shape(header: Header) -> tuple[str, int]:
    """Return architecture and context length of a model whose sizes agree with each other."""
    architecture = header.text("general.architecture")
    if architecture is None or header.text("general.type") not in (None, "model"):
        raise damaged("it holds no model")
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise _unsupported("architecture", SUPPORTED_ARCHITECTURES)
    width, context = _size(header, "embedding_length"), _size(header, "context_length")
    heads, layers = _size(header, "attention.head_count"), _size(header, "block_count", limit=MAX_LAYERS)
    shared_heads = _size(header, "attention.head_count_kv", default=heads)
    head = _size(header, "attention.key_length", default=width // heads)
    turned = _size(header, "rope.dimension_count", default=head)
    _size(header, "feed_forward_length")
    whole = heads % shared_heads == 0 and _size(header, "attention.value_length", default=head) == head
    if not whole or head % 2 or turned != head or (head == width // heads and width % heads):
        raise damaged("the sizes of its attention do not agree")
    if header.float32(f"{architecture}.attention.layer_norm_rms_epsilon") is None:
        raise damaged("its normalisation constant is missing")
    if f"blk.{layers - 1}.attn_norm.weight" not in header.tensors:
        raise damaged("layers are missing")
    return architecture, context


def _size(header: Header, key: str, *, default: int | None = None, limit: int = MAX_SIZE) -> int:
    """The positive size stored under the architecture's `key`."""
    full = f"{header.text('general.architecture')}.{key}"
    value = default if full not in header.metadata else header.uint32(full)
    if value is None or not 0 < value <= limit:
        raise damaged("a size in it is missing or impossible")
    return value


def _check_vocabulary(header: Header) -> None:
    """The vocabulary is of a known kind, has no token twice and the length of the embedding table."""
    if header.text("tokenizer.ggml.model") not in TOKENIZERS:
        raise _unsupported("tokenizer", TOKENIZERS)
    tokens = header.array("tokenizer.ggml.tokens", STRING)
    table = header.tensors.get("token_embd.weight")
    if tokens is None or table is None or table.shape[1:] != (len(tokens),) or len(set(tokens)) != len(tokens):
        raise damaged("its vocabulary does not fit its embedding table")
    for key, element in (("scores", FLOAT32), ("token_type", INT32)):
        name = f"tokenizer.ggml.{key}"
        values = header.array(name, element)
        if name in header.metadata and (values is None or len(values) != len(tokens)):
            raise damaged("its vocabulary is incomplete")


def _unsupported(what: str, known: tuple[str, ...]) -> UsageError:
    """The error for a sound file of a kind that is not served."""
    message = f"The model's {what} is not supported."
    return UsageError(message, hint=f"Supported: {', '.join(known)}.", code="model_unsupported")


def _pair(line: str, number: int, name: str) -> tuple[str, str]:
    """One probe line as a (prompt, answer) pair."""
    try:
        entry = json.loads(line)
        prompt, answer = entry["prompt"], entry["answer"]
    except (ValueError, KeyError, TypeError):
        prompt = answer = None
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise IntegrityError(f"Line {number} of {name} is no probe pair.", hint="Make the probe file again.")
    return prompt, answer
