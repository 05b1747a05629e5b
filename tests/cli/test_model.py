"""`corrigible model`: only what is served as it is trained gets on the list."""

from pathlib import Path

import pytest

from cli.config import load
from cli.session import Session
from tests.cli.helpers import Call
from tests.feedback.micro import Shape, write_model
from tests.learner import zoo


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model of a supported architecture."""
    return zoo.write(zoo.make("qwen2"), "qwen2", tmp_path_factory.mktemp("models") / "small.gguf")


def test_a_model_is_added_listed_and_used(call: Call, home: Path, small: Path) -> None:
    """What was added is on the list, and what is used is what the settings name afterwards."""
    added = call("model", "add", str(small), "--json")
    assert added.keys("model", "add")
    assert added.data["checked"]["fits"]
    assert call("model", "use", "small", "--json").keys("model", "use")
    settings = Session(place=home).home.config
    assert load(settings, {}).model.path == small
    listed = call("model", "list", "--json")
    assert listed.keys("model", "list")
    assert [(one["name"], one["used"], one["state"]) for one in listed.data["models"]] == [
        ("embedded", "", "as shipped"), ("small", "used", "as added"),
    ]  # fmt: skip
    settings.write_text("# mine\n[chat]\nturns = 3\n" + settings.read_text())
    call("model", "use", "embedded")
    assert load(settings, {}).model.path is None
    assert load(settings, {}).chat.turns == 3
    assert "# mine" in settings.read_text()


def test_a_model_whose_file_was_changed_is_not_used(call: Call, tmp_path: Path, small: Path) -> None:
    """The list says so, and `use` refuses it."""
    path = tmp_path / "other.gguf"
    path.write_bytes(small.read_bytes())
    assert call("model", "add", str(path)).code == 0
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert call("model", "list", "--json").data["models"][1]["state"] == "changed"
    refused = call("model", "use", "other", "--json")
    assert (refused.code, refused.error["code"]) == (13, "model_changed")
    path.unlink()
    assert call("model", "list", "--json").data["models"][1]["state"] == "missing"


def test_a_model_that_is_not_served_as_it_is_trained_is_refused(call: Call, tmp_path: Path) -> None:
    """Transformers scales the attention of every Gemma 2 like the released ones': `check` says so, `add` refuses."""
    path = zoo.write(zoo.make("gemma2", head_dim=64), "gemma2", tmp_path / "odd.gguf")
    checked = call("model", "check", str(path), "--json")
    assert checked.code == 13
    assert checked.keys("model", "check")
    assert not checked.data["fits"]
    refused = call("model", "add", str(path), "--json")
    assert (refused.code, refused.error["code"]) == (13, "parity")
    assert len(call("model", "list", "--json").data["models"]) == 1


def test_an_unknown_architecture_or_name_is_wrong_use(call: Call, tmp_path: Path) -> None:
    """Both are said before anything is loaded."""
    path = write_model(tmp_path / "x.gguf", Shape())
    path.write_bytes(path.read_bytes().replace(b"llama", b"lmama"))
    assert call("model", "add", str(path), "--json").error["code"] == "model_unsupported"
    assert call("model", "use", "nobody", "--json").error["code"] == "model_unknown"
