"""The gateway as a background process: started, seen by other commands, let into, stopped."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cli.runtime import LOCK
from cli.session import Session
from tests.cli.helpers import Call
from tests.feedback.micro import Shape, write_model

EXITS = {"integrity": 13, "model_too_large": 1}
LIMIT = 240  # seconds, on a machine that others load


def corrigible(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command line in a process of its own."""
    environment = {**os.environ, "CORRIGIBLE_HOME": str(home)}
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.mark.slow
def test_up_status_open_down(ready: Call, home: Path) -> None:
    """One process serves and learns; a second `up` finds it; `down` leaves nothing behind."""
    started = corrigible(home, "up", "--port", "0", "--json")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        again = ready("up", "--json")
        assert again.keys("up")
        assert again.data["started"] is False
        address = again.data["address"]
        assert ready("status", "--json").data["gateway"]["address"] == address
        (token,) = ready("gateway", "tokens", "--show", "--json").data["tokens"]
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token['token']}"}) as client:
            body = {"messages": [{"role": "user", "content": "turn off the kitchen light"}], "max_tokens": 8}
            answer = client.post("/v1/chat/completions", json=body, timeout=LIMIT).json()
            right = {"completion_id": answer["id"], "corrected": "light.off()"}
            assert client.post("/v1/corrections", json=right, timeout=LIMIT).status_code == 201
        link = ready("open", "--print", "--json")
        assert link.keys("open")
        assert link.data["url"].startswith(f"{address}/#token=")
        assert ready("log", "list", "--json").data["count"] == 1
    finally:
        stopped = ready("down", "--json")
    assert stopped.keys("down")
    assert ready("status", "--json").data["gateway"] is None
    assert ready("down", "--json").code == 16
    assert not (home / "run" / "gateway.json").exists()


def test_up_refuses_what_cannot_be_served(ready: Call, home: Path, tmp_path: Path) -> None:
    """No store, a missing model, a file that is none, an address for all to reach: each with its own code."""
    assert ready("--home", str(tmp_path / "none"), "up", "--json").code == 10
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF" + b"\0" * 100)
    strange = write_model(tmp_path / "strange.gguf", Shape(architecture="mamba"))
    huge = write_model(tmp_path / "huge.gguf", Shape())
    os.truncate(huge, 1 << 42)  # sparse: four terabytes to the eye
    for text, code in (
        (f'[model]\npath = "{tmp_path}/missing.gguf"\n', "model_missing"),
        (f'[model]\npath = "{junk}"\n', "integrity"),
        (f'[model]\npath = "{strange}"\n', "model_unsupported"),
        (f'[model]\npath = "{huge}"\n', "model_too_large"),
        ('[gateway]\nhost = "0.0.0.0"\n', "exposed"),
        ('[upstream]\nurl = "http://example.org/v1"\nmodel = "x"\n', "config"),
    ):
        (home / "config.toml").write_text(text)
        result = ready("up", "--json")
        assert (result.error["code"], result.code) == (code, EXITS.get(code, 2))
        assert result.error["message"]
        assert result.error["hint"]


def test_up_refuses_where_it_cannot_serve(ready: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program has the port, a gateway that never comes to serve the store, the key is another store's."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = ready("up", "--port", str(other.getsockname()[1]), "--json")
    with monkeypatch.context() as patience, Session(place=home).store() as store, store.lock(LOCK):
        patience.setattr("cli.up.PATIENCE", 1.0)
        held = ready("up", "--port", "0", "--json")
    next((home / "data").glob("insecure-*")).write_text("00" * 32)
    locked_out = ready("up", "--port", "0", "--json")
    found = [(result.code, result.error["code"]) for result in (taken, held, locked_out)]
    assert found == [(17, "port_taken"), (11, "busy"), (12, "wrong_key")]
    assert all(result.error["hint"] for result in (taken, held, locked_out))


def test_what_would_leave_is_shown_and_consent_names_the_server(ready: Call, home: Path) -> None:
    """Secrets are blacked out in the preview; without an upstream there is nothing to preview or to agree to."""
    assert ready("gateway", "preview", "x", "--json").code == 15
    assert ready("gateway", "calibrate", "--json").error["code"] == "too_little_evidence"
    (home / "config.toml").write_text('[upstream]\nurl = "https://example.org/v1"\nmodel = "big"\n')
    shown = ready("gateway", "preview", "mail jane@example.org", "--json")
    assert shown.keys("gateway", "preview")
    assert shown.data["redacted"] == {"EMAIL": 1}
    assert "jane" not in shown.data["body"]
    assert shown.data["consent"] is False
    assert ready("privacy", "consent", "upstream", "--grant", "--yes", "--json").data["consents"]["upstream"] is True
    assert ready("gateway", "preview", "x", "--json").data["consent"] is True
