"""Model files and adapters: what may be served and what is refused, and how that is said."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from feedback.models import (
    SUPPORTED_ARCHITECTURES,
    check_adapter,
    check_model,
    embedded_model,
    probe_pairs,
)
from store.errors import IntegrityError, UsageError
from tests.feedback.micro import Shape, adapter, adapter_writer, finished, write_model


def test_the_embedded_model_is_there_and_sound() -> None:
    """The package brings a model that works out of the box, with a probe set of its own skill."""
    model = check_model(embedded_model())
    assert model.architecture == "llama"
    assert model.context >= 256
    assert len(probe_pairs(model.path)) >= 100


def test_a_checked_model_is_named_by_the_hash_of_its_bytes(micro: Path) -> None:
    """The digest is what other records refer to."""
    model = check_model(micro)
    assert model.digest == "sha256:" + hashlib.sha256(micro.read_bytes()).hexdigest()
    assert (model.architecture, model.name, model.context, model.path) == ("llama", "micro", 256, micro)


def test_a_changed_file_is_checked_again(tmp_path: Path) -> None:
    """The kept result holds for one state of the file only."""
    path = write_model(tmp_path / "m.gguf", Shape(seed=1))
    before = check_model(path)
    write_model(path, Shape(seed=2, layers=3))
    assert check_model(path).digest != before.digest


def test_a_missing_model_is_the_callers_mistake(tmp_path: Path) -> None:
    """The error names the file and has its own code."""
    with pytest.raises(UsageError, match=r"nothing\.gguf") as caught:
        check_model(tmp_path / "nothing.gguf")
    assert caught.value.code == "model_missing"
    with pytest.raises(UsageError):
        check_model(tmp_path)  # a folder


@pytest.mark.parametrize("content", [b"", b"{}", b"GGUF", b"\x80\x04pickle" * 100])
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever somebody points at, the answer is an error."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        check_model(path)


def test_a_truncated_model_is_refused(micro: Path, tmp_path: Path) -> None:
    """A copy that stopped early never reaches llama.cpp, which would map memory that is not there."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(micro.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="end of the file"):
        check_model(path)


def test_an_unsupported_architecture_is_named_as_such(tmp_path: Path) -> None:
    """The hint lists what is supported."""
    path = write_model(tmp_path / "m.gguf", Shape(architecture="gptneox"))
    with pytest.raises(UsageError) as caught:
        check_model(path)
    assert caught.value.code == "model_unsupported"
    assert all(name in caught.value.hint for name in SUPPORTED_ARCHITECTURES)


@pytest.mark.parametrize("shape", [Shape(heads=3), Shape(width=64, heads=64), Shape(context=0), Shape(inner=0)])
def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path, shape: Shape) -> None:
    """llama.cpp would end the process on these."""
    path = write_model(tmp_path / "m.gguf", shape)
    with pytest.raises(IntegrityError):
        check_model(path)


def test_an_adapter_is_no_model_and_a_model_no_adapter(micro: Path, tmp_path: Path) -> None:
    """Each check knows its own kind."""
    path = tmp_path / "a.gguf"
    path.write_bytes(adapter(micro))
    with pytest.raises(IntegrityError):
        check_model(path)
    with pytest.raises(IntegrityError):
        check_adapter(micro.read_bytes(), "llama")


def test_a_sound_adapter_passes_for_its_own_architecture_only(micro: Path) -> None:
    """Shapes are llama.cpp's to judge, the architecture is ours."""
    check_adapter(adapter(micro), "llama")
    with pytest.raises(IntegrityError):
        check_adapter(adapter(micro), "qwen2")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_adapter_with_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    """One such number would spoil every answer."""
    a, b = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)
    b[5, 1] = bad
    with pytest.raises(IntegrityError, match="finite"):
        check_adapter(_pair(a, b), "llama")


def test_adapter_matrices_must_come_in_pairs_that_fit() -> None:
    """A alone, or a rank that differs, is refused."""
    a, b = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)
    check_adapter(_pair(a, b), "llama")
    for wrong in (_pair(a, None), _pair(a, b[:, :1]), _pair(a[0], b), _pair(None, None), _pair(a, b, alpha=np.nan)):
        with pytest.raises(IntegrityError):
            check_adapter(wrong, "llama")


def test_probe_pairs_lie_beside_the_model_under_its_name(tmp_path: Path) -> None:
    """Without the file there are none; blank lines do not matter."""
    model = tmp_path / "base.v1.gguf"
    assert probe_pairs(model) == []
    lines = [json.dumps({"prompt": "a", "answer": "b", "count": 2}), "", json.dumps({"prompt": "ü", "answer": ""})]
    (tmp_path / "base.v1.gguf.probe.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert probe_pairs(model) == [("a", "b"), ("ü", "")]


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "secret"}', '{"prompt": 1, "answer": "x"}', "null"])
def test_a_bad_probe_line_is_named_by_its_number_alone(tmp_path: Path, line: str) -> None:
    """The message never quotes the line."""
    (tmp_path / "m.probe.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(IntegrityError, match="Line 2") as caught:
        probe_pairs(tmp_path / "m.gguf")
    assert "secret" not in str(caught.value)


def _pair(a: np.ndarray | None, b: np.ndarray | None, *, alpha: float = 2.0) -> bytes:
    """An adapter of one matrix."""
    writer = adapter_writer("llama", alpha=alpha)
    for end, value in (("a", a), ("b", b)):
        if value is not None:
            writer.add_tensor(f"blk.0.attn_q.weight.lora_{end}", value)
    return finished(writer)
