"""The strict GGUF reader: what is damaged is refused, and llama.cpp never dies of what is let through."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.gguf_header import FLOAT32, STRING, read_header
from store.errors import IntegrityError
from tests.feedback.micro import Shape, tensors, vocabulary

MUTANTS = 300


def test_names_types_and_shapes_are_those_that_were_written(micro: Path) -> None:
    """Metadata and tensors come back as the gguf package wrote them, shapes fastest axis first."""
    header = read_header(micro.read_bytes())
    assert header.text("general.architecture") == "llama"
    assert header.uint32("llama.block_count") == 2
    assert header.float32("llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert header.array("tokenizer.ggml.tokens", STRING) == [word.encode() for word in vocabulary()]
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    assert shapes == {name: value.shape[::-1] for name, value in tensors(Shape()).items()}


def test_a_value_of_another_type_reads_as_absent(micro: Path) -> None:
    """Nothing is converted silently."""
    header = read_header(micro.read_bytes())
    assert header.text("llama.block_count") is None
    assert header.uint32("general.name") is None
    assert header.float32("llama.block_count") is None
    assert header.array("tokenizer.ggml.tokens", FLOAT32) is None


def test_a_file_cut_anywhere_is_refused(micro: Path) -> None:
    """No prefix of a model passes, wherever the copy stopped."""
    data = micro.read_bytes()
    for length in [0, 3, 4, 8, 23, *range(24, len(data), 1999), len(data) - 32]:
        with pytest.raises(IntegrityError):
            read_header(data[:length])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, b"GGML"),
        (4, struct.pack("<I", 1)),
        (8, struct.pack("<Q", 1 << 60)),
        (16, struct.pack("<Q", 1 << 60)),
        (24, struct.pack("<Q", 1 << 60)),
        (24, struct.pack("<Q", 0)),
    ],
    ids=["magic", "version", "tensor count", "key count", "key length", "empty key"],
)
def test_impossible_numbers_are_refused(micro: Path, place: int, value: bytes) -> None:
    """A count or length that cannot be true ends the reading at once."""
    data = bytearray(micro.read_bytes())
    data[place : place + len(value)] = value
    with pytest.raises(IntegrityError):
        read_header(bytes(data))


def test_a_key_that_comes_twice_is_refused(micro: Path) -> None:
    """Two answers to one question are a damaged file."""
    data = micro.read_bytes()
    double = data.replace(b"llama.embedding_length", b"llama.embedding_lengtg").replace(
        b"llama.embedding_lengtg", b"llama.context_length\0\0"
    )
    with pytest.raises(IntegrityError):
        read_header(double)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_no_damaged_file_ends_the_process(kind: str, tmp_path: Path) -> None:
    """300 mutated files are refused or served; none kills the process that opens it, and all stay silent."""
    command = [sys.executable, "-m", "tests.feedback.mutants", kind, str(MUTANTS), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"died of mutant {result.stdout.split()[-1:]}: {result.stderr[-500:]}"
    assert len(result.stdout.split()) == MUTANTS
    assert result.stderr == ""
