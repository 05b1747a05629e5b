"""A runner for the command line: in this process for speed, on a real home folder, with real stores."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import run
from tests.cli.helpers import Call, Result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder that CORRIGIBLE_HOME names; no other setting, and no keyring, reaches the command."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("CORRIGIBLE_HOME", str(folder))
    monkeypatch.delenv("CORRIGIBLE_PASSPHRASE_FILE", raising=False)
    return folder


@pytest.fixture
def call(home: Path) -> Call:
    """Run one command line in this process, as `run` does for the real command."""

    def call(*words: str, stdin: str = "") -> Result:
        with CliRunner().isolation(input=stdin) as (out, err, _):
            code = run(words)
            return Result(code, out.getvalue().decode(), err.getvalue().decode())

    return call


@pytest.fixture
def ready(call: Call) -> Call:
    """The runner on an initialised home with a key file."""
    assert call("init", "--key", "file", "--insecure-key-file").code == 0
    return call
