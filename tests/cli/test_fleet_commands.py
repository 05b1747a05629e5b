"""Joining, leaving, receiving, and serving a fleet: what each command says, changes and refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cli.previewing import preview_in_child
from cli.session import Session
from federation import adapter
from federation.plan import Plan, ServerFolder
from federation.preview import NO_RELEASE
from federation.server import Operator
from federation.update import Expected, decode
from store.records import digest
from tests.cli.helpers import Call
from tests.federation.live import Live, make_server, standard


@pytest.fixture
def joined(ready: Call, live: Live) -> Call:
    """The runner on a device that has joined the running fleet."""
    assert ready("fleet", "join", str(live.link("me")), "--yes").code == 0
    return ready


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    """A server's folder that nobody serves."""
    return make_server(tmp_path / "server", standard())[0]


def no_devices(*_: object) -> NoReturn:
    """Nobody is asked."""
    raise AssertionError


def empty_release(server: ServerFolder) -> None:
    """Publish the fleet's first release, an adapter that changes nothing."""
    plan = replace(Plan.read(server.plan), rounds=0)
    Operator.open(server, plan, server.state(), None).run("run", no_devices)


def next_release(server: ServerFolder) -> None:
    """Publish one more release with the adapter of the newest."""
    operator = Operator.open(server, Plan.read(server.plan), server.state(), None)
    newest = operator._start()
    number = newest.manifest.round + 1
    operator._publish(replace(newest.manifest, round=number, parent=newest.manifest.id, cohort=3), newest.adapter)


@pytest.mark.slow
def test_joining_shows_terms_and_needs_a_yes(ready: Call, live: Live) -> None:
    """Operator, unit, epsilon, delta, caps, bytes and who sees what are said before anything is agreed."""
    result = ready("fleet", "join", str(live.link()), "--json")
    assert (result.code, result.error["code"]) == (2, "confirmation_needed")
    wanted = ("a test", "one correction", "epsilon 8", "delta 1e-06", "never text", "bytes", "Who can see what")
    for word in wanted:
        assert word in result.error["message"]
    assert ready("fleet", "status", "--json").data == {"joined": False, "shared": None, "server": None}


@pytest.mark.slow
def test_joining_agrees_and_leaving_withdraws(joined: Call, home: Path) -> None:
    """Consent is on record and signed, the request to join is in the egress ledger; leaving deletes the keys."""
    assert joined("privacy", "consent", "--json").data["consents"]["share"] is True
    signed = json.loads((home / "data" / "fleet" / "consent.json").read_text())
    assert {"device", "node_key", "terms", "signature", "consent"} <= set(signed)
    assert "token" not in signed
    left = joined("privacy", "ledger", "--json").data["egress"]
    (sent,) = (one for one in left if one["purpose"] == "join")
    assert (sent["consent"], sent["epsilon"]) == (signed["consent"], 0.0)
    assert sum(one["size"] for one in left if one["purpose"] == "transport") > sent["size"]
    status = joined("fleet", "status", "--json")
    assert status.keys("fleet", "status")
    data = status.data
    assert data["joined"]
    assert data["consent"]
    assert data["budget"]["unit"] == "correction"
    assert joined("fleet", "leave", "--json").code == 2
    assert joined("fleet", "leave", "--forget", "--yes").code == 0
    assert joined("privacy", "consent", "--json").data["consents"]["share"] is False
    assert not (home / "data" / "fleet").exists()
    result = joined("fleet", "leave", "--yes", "--json")
    assert (result.code, result.error["code"]) == (15, "no_fleet")


@pytest.mark.slow
def test_a_used_invitation_leaves_no_consent(ready: Call, live: Live, tmp_path: Path, home: Path) -> None:
    """Exit 15; the word given before the refusal is taken back, and no keys stay."""
    link = live.link("first")
    live.join(tmp_path / "first", link)
    result = ready("fleet", "join", str(link), "--yes", "--json")
    assert (result.code, result.error["code"]) == (15, "invitation")
    assert ready("privacy", "consent", "--json").data["consents"]["share"] is False
    assert not [path for path in (home / "data").glob("fleet*") if path.name != "fleet-server"]


@pytest.mark.slow
def test_consent_can_be_withdrawn_without_leaving(joined: Call) -> None:
    """Sharing stops at once and can be agreed to again."""
    assert joined("privacy", "consent", "share", "--withdraw").code == 0
    assert joined("fleet", "status", "--json").data["consent"] is False
    before = joined("privacy", "status", "--json").data["wire_bytes"]
    refused = joined("fleet", "receive", "--json")
    assert (refused.code, refused.error["code"]) == (15, "no_consent")
    assert joined("privacy", "status", "--json").data["wire_bytes"] == before > 0
    assert joined("privacy", "consent", "share", "--grant", "--yes").code == 0
    assert joined("fleet", "status", "--json").data["consent"] is True


@pytest.mark.parametrize("text", ["", "{}", "http://x", "https://localhost:1/#x.y"])
def test_what_is_no_invitation_is_refused(ready: Call, text: str) -> None:
    """Exit 2, before anything is asked of anybody."""
    assert ready("fleet", "join", text, "--yes").code == 2


@pytest.mark.slow
def test_a_fleet_of_another_base_is_refused(ready: Call, live: Live) -> None:
    """Its adapters could not be served here."""
    plan = Plan.read(live.folder.plan)
    replace(plan, base=digest(b"another")).write(live.folder.plan)
    try:
        assert ready("fleet", "join", str(live.link()), "--yes", "--json").error["code"] == "wrong_base"
    finally:
        plan.write(live.folder.plan)


@pytest.mark.slow
def test_a_release_is_verified_before_it_is_judged(joined: Call, live: Live) -> None:
    """From the server or from a copy, a genuine release gets a verdict; one changed byte is exit 18."""
    assert joined("fleet", "receive", "--json").code == 15
    empty_release(live.folder)
    received = joined("fleet", "receive", "--json")
    assert received.keys("fleet", "receive")
    assert received.data["decision"] == "wait"
    assert joined("fleet", "status", "--json").data["round"] == 0
    copy = ("--from", str(live.folder.repository))
    assert joined("fleet", "receive", *copy, "--json").data["decision"] == "wait"
    listed = live.folder.metadata / "timestamp.json"
    good = listed.read_bytes()
    try:
        value = json.loads(good)
        value["signed"]["version"] += 1
        listed.write_text(json.dumps(value))
        result = joined("fleet", "receive", *copy, "--json")
        assert (result.code, result.error["code"]) == (18, "repository")
    finally:
        listed.write_bytes(good)


def test_a_server_is_made_once_and_says_what_to_do(ready: Call, home: Path) -> None:
    """A quorum for a desk is warned of; making it again would orphan its devices."""
    made = ready("fleet", "init", "--quorum", "3", "--rule", "median", "--json")
    assert made.keys("fleet", "init")
    assert made.data["warning"] == "small_quorum"
    assert Plan.read(ServerFolder(Path(made.data["folder"])).plan).rule == "median"
    assert ready("fleet", "init", "--quorum", "3").code == 2
    enrolled = ready("fleet", "enroll", "ada", "--json")
    assert enrolled.keys("fleet", "enroll")
    assert enrolled.data["link"].startswith("https://localhost:8443/#")
    assert ready("fleet", "nodes", "--json").data == {"nodes": []}
    assert ready("fleet", "status", "--json").data["server"]["running"] is False
    result = ready("fleet", "round", "start", "--json")
    assert (result.code, result.error["code"]) == (17, "network")


def test_the_operators_word_on_rounds_is_kept_and_logged(ready: Call, server: ServerFolder) -> None:
    """Halt and resume are seen by status and stand in a whole audit log."""
    there = ("--server", str(server.root), "--json")
    for word, halted in (("halt", True), ("resume", False)):
        assert ready("fleet", "round", word, *there).data == {"halted": halted}
        assert ready("fleet", "round", "status", *there).data == {"halted": halted, "rounds": []}
    assert [event.event for event in server.state().events()][-2:] == ["halted", "resumed"]
    assert ready("fleet", "status", *there).data["server"]["audit"]["whole"] is True


def test_releases_are_widened_and_withdrawn(ready: Call, server: ServerFolder) -> None:
    """A share only grows; what is withdrawn is replaced by the release before it, as the newest of the line."""
    empty_release(server)
    next_release(server)
    next_release(server)
    there = ("--server", str(server.root), "--json")
    listed = ready("fleet", "release", "list", *there).data["releases"]
    assert [one["round"] for one in listed] == [0, 1, 2]
    assert ready("fleet", "release", "promote", "2", "--percent", "50", *there).error["code"] == "rollout"
    shown = ready("fleet", "release", "show", listed[2]["id"], *there)
    assert shown.keys("fleet", "release", "show")
    assert shown.data["manifest"]["parent"] == listed[1]["id"]
    assert ready("fleet", "release", "withdraw", "1", *there).code == 2
    gone = ready("fleet", "release", "withdraw", "1", "--yes", *there).data
    assert (gone["withdrawn"], gone["round"]) == ([1, 2], 3)
    assert ready("fleet", "release", "withdraw", "2", "--yes", *there).error["code"] == "withdrawn"
    statuses = [one["status"] for one in ready("fleet", "release", "list", *there).data["releases"]]
    assert statuses == ["promoted", "withdrawn", "withdrawn", "promoted"]
    next_release(server)
    assert [row.number for row in server.state().releases()] == [0, 1, 2, 3, 4]


def test_without_a_server_the_operators_commands_say_so(ready: Call, tmp_path: Path) -> None:
    """Exit 10, with what to do."""
    for words in (("up",), ("nodes",), ("enroll", "x"), ("round", "halt"), ("release", "list"), ("status",)):
        assert ready("fleet", *words, "--server", str(tmp_path / "none"), "--json").code == 10


def test_taking_part_needs_a_fleet(ready: Call) -> None:
    """Exit 15 for a device in no fleet."""
    assert ready("fleet", "run", "--json").code == 15
    assert ready("fleet", "receive", "--json").code == 15
    assert ready("fleet", "preview", "--json").code == 15


def _but_the_noise(account: dict[str, Any]) -> dict[str, Any]:
    """An account without what fresh noise makes different each time: the bytes and the extremes of the numbers."""
    lines = [re.sub(r"from -\d+ to \d+, in", "from LOW to HIGH, in", line) for line in account["account"]]
    assert sum("from LOW to HIGH" in line for line in lines) == 1
    return {**account, "account": lines, "digest": "", "begins_with": ""}


@pytest.mark.slow
def test_the_preview_is_the_size_of_every_message(joined: Call, live: Live, home: Path, tmp_path: Path) -> None:
    """The exact bytes can be looked at; nothing is spent. The page gets the same account from a process apart."""
    out = tmp_path / "message.bin"
    result = joined("fleet", "preview", "--out", str(out), "--json")
    data = result.data
    assert out.stat().st_size == data["bytes"]
    assert digest(out.read_bytes()) == data["digest"]
    plan = Plan.read(live.folder.plan)
    expected = Expected(plan.base, NO_RELEASE, 1, plan.spec, adapter.layout(plan.geometry, plan.spec))
    assert decode(out.read_bytes(), expected).expected is expected
    assert (data["unit"], data["delta"]) == ("correction", 1e-6)
    session = Session(place=home)
    with session.unlocked() as (_, keys):
        account = preview_in_child(session, keys)
    assert _but_the_noise(account) == _but_the_noise(data)
    assert joined("privacy", "status", "--json").data["budget"]["runs"] == 0
