"""Joining, leaving and receiving: a device decides, and says what it agreed to."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cli.previewing import preview_in_child
from cli.session import Session
from federation import deploy
from federation.plan import ServerFolder
from federation.server import Operator
from federation.standard import standard_plan
from feedback.models import check_model, embedded_model
from learner.base import load_base
from store.records import digest
from tests.cli.helpers import Call


@pytest.fixture
def server(ready: Call, tmp_path: Path) -> ServerFolder:
    """A fleet server's folder, made by the command."""
    assert ready("fleet", "create", str(tmp_path / "server")).code == 0
    return ServerFolder(tmp_path / "server")


@pytest.fixture
def joined(ready: Call, server: ServerFolder) -> Call:
    """The runner on a device that has joined."""
    assert ready("fleet", "join", str(server.root / "invitation.json"), "--yes").code == 0
    return ready


def empty_release(server: ServerFolder) -> Path:
    """Publish the fleet's first release, an adapter that changes nothing; return its manifest."""
    model = check_model(embedded_model())
    geometry = load_base(model).geometry
    plan = replace(standard_plan(model, geometry, rounds=1, devices=1, epsilon=8.0), rounds=0)
    Operator.open(server, plan, None).run("run", no_devices)
    (path,) = server.releases.glob("*.json")
    return path


def no_devices(*_: object) -> NoReturn:
    """Nobody is asked."""
    raise AssertionError


def test_joining_shows_terms_and_needs_a_yes(ready: Call, server: ServerFolder) -> None:
    """Unit, epsilon, delta and what leaves are said before anything is agreed."""
    result = ready("fleet", "join", str(server.root / "invitation.json"), "--json")
    assert (result.code, result.error["code"]) == (2, "confirmation_needed")
    for word in ("one correction", "epsilon 8", "delta 1e-06", "never text"):
        assert word in result.error["message"]
    assert ready("fleet", "status", "--json").data == {"joined": False, "shared": None}


def test_joining_agrees_and_leaving_withdraws(joined: Call, home: Path) -> None:
    """Consent is on record; leaving deletes the device's fleet keys."""
    assert joined("privacy", "consent", "--json").data["consents"]["share"] is True
    data = joined("fleet", "status", "--json").data
    assert data["joined"]
    assert data["consent"]
    assert data["budget"]["unit"] == "correction"
    assert joined("fleet", "leave", "--json").code == 2
    assert joined("fleet", "leave", "--forget", "--yes").code == 0
    assert joined("privacy", "consent", "--json").data["consents"]["share"] is False
    assert not (home / "data" / "fleet").exists()
    result = joined("fleet", "leave", "--yes", "--json")
    assert (result.code, result.error["code"]) == (15, "no_fleet")


def test_consent_can_be_withdrawn_without_leaving(joined: Call) -> None:
    """Sharing stops at once and can be agreed to again."""
    assert joined("privacy", "consent", "share", "--withdraw").code == 0
    assert joined("fleet", "status", "--json").data["consent"] is False
    assert joined("privacy", "consent", "share", "--grant", "--yes").code == 0
    assert joined("fleet", "status", "--json").data["consent"] is True


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"release_key": "zz", "base": "x"}', "\xff"])
def test_a_file_that_is_no_invitation_is_refused(ready: Call, tmp_path: Path, text: str) -> None:
    """Exit 2."""
    path = tmp_path / "file"
    path.write_bytes(text.encode("latin-1"))
    assert ready("fleet", "join", str(path), "--yes").code == 2


def test_a_fleet_of_another_base_is_refused(ready: Call, server: ServerFolder) -> None:
    """Its adapters could not be served here."""
    path = server.root / "invitation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": digest(b"another")}))
    assert ready("fleet", "join", str(path), "--yes", "--json").error["code"] == "wrong_base"


def test_a_release_is_verified_before_it_is_judged(joined: Call, server: ServerFolder) -> None:
    """A genuine release gets a verdict; one changed byte is exit 18 and changes nothing."""
    path = empty_release(server)
    received = joined("fleet", "receive", str(path), "--json")
    assert received.keys("fleet", "receive")
    assert received.data["decision"] == "wait"
    assert joined("fleet", "status", "--json").data["round"] == 0
    stored = path.with_suffix(".gguf")
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    result = joined("fleet", "receive", str(path), "--json")
    assert (result.code, result.error["code"]) == (18, "adapter")
    stored.unlink()
    assert joined("fleet", "receive", str(path)).code == 2


def test_a_release_of_another_fleet_is_refused(joined: Call, tmp_path: Path) -> None:
    """The key pinned on joining decides."""
    assert joined("fleet", "create", str(tmp_path / "other")).code == 0
    path = empty_release(ServerFolder(tmp_path / "other"))
    result = joined("fleet", "receive", str(path), "--json")
    assert (result.code, result.error["code"]) == (18, "signature")


def test_a_server_is_made_once(joined: Call, server: ServerFolder) -> None:
    """Making it again would orphan its devices."""
    assert joined("fleet", "create", str(server.root)).code == 2


def _but_the_noise(account: dict[str, Any]) -> dict[str, Any]:
    """An account without what fresh noise makes different each time: the bytes and the extremes of the numbers."""
    lines = [re.sub(r"from -\d+ to \d+, in", "from LOW to HIGH, in", line) for line in account["account"]]
    assert sum("from LOW to HIGH" in line for line in lines) == 1
    return {**account, "account": lines, "digest": "", "begins_with": ""}


def test_the_preview_is_the_size_of_every_message(joined: Call, home: Path, tmp_path: Path) -> None:
    """The exact bytes can be looked at; nothing is spent. The page gets the same account from a process apart."""
    out = tmp_path / "message.bin"
    result = joined("privacy", "preview", "--out", str(out), "--json")
    assert result.keys("privacy", "preview")
    data = result.data
    assert out.stat().st_size == data["bytes"]
    assert digest(out.read_bytes()) == data["digest"]
    assert (data["unit"], data["delta"]) == ("correction", 1e-6)
    session = Session(place=home)
    with session.unlocked() as (_, keys):
        account = preview_in_child(session, keys)
    assert _but_the_noise(account) == _but_the_noise(data)
    assert joined("privacy", "status", "--json").data["budget"]["runs"] == 0


def test_a_fleet_that_does_not_come_up_is_exit_17(
    joined: Call, server: ServerFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server process is given no time at all; it is taken down again and the log is named."""
    monkeypatch.setattr(deploy, "START", 0.0)
    result = joined("fleet", "serve", str(server.root), "--device", str(home), "--json")
    assert (result.code, result.error["code"]) == (17, "network")


def test_serving_needs_a_server_and_members(ready: Call, home: Path, tmp_path: Path) -> None:
    """Exit 2 without a server, exit 15 for a device in no fleet."""
    (tmp_path / "empty").mkdir()
    assert ready("fleet", "serve", str(tmp_path / "empty"), "--device", str(home)).code == 2
    assert ready("fleet", "create", str(tmp_path / "server")).code == 0
    assert ready("fleet", "serve", str(tmp_path / "server"), "--device", str(home)).code == 15
