"""What `--json` writes is what docs/json.md publishes."""

from pathlib import Path

import pytest

from cli.session import Session
from store.records import Adapter, Interaction, Message, digest
from tests.cli.helpers import PUBLISHED, Call

ELSEWHERE = {  # needs a trained adapter, a running loop, a fleet or a release: checked where those are
    ("learn",),
    ("learner", "stop"),
    ("privacy", "preview"),
    ("fleet", "up"),
    ("fleet", "run"),
    ("fleet", "revoke"),
    ("fleet", "round", "start"),
    ("fleet", "release", "show"),
    ("fleet", "release", "promote"),
    ("fleet", "release", "withdraw"),
    ("fleet", "join"),
    ("fleet", "status"),
    ("fleet", "receive"),
    ("fleet", "preview"),
    ("fleet", "leave"),
    ("up",),
    ("down",),
    ("open",),
    ("gateway", "preview"),
    ("gateway", "calibrate"),
    ("service", "uninstall"),
    ("model", "add"),
    ("model", "check"),
    ("model", "use"),
}


@pytest.fixture
def busy(ready: Call, home: Path, tmp_path: Path) -> dict[tuple[str, ...], list[str]]:
    """A home with something of everything; returns the arguments each command needs there."""
    with Session(place=home).store() as store:
        said = Interaction(messages=(Message("user", "words"),), answer="a", model=digest(b""), time=1.0)
        forgotten = Interaction(messages=(Message("user", "more words"),), answer="a", model=digest(b""), time=2.0)
        store.add_all([said, forgotten])
        name = store.put_artefact(b"adapter")
        store.add(Adapter(digest=name, slot="personal", base=Session(place=home).model().digest, time=1.0))
    server, secret = ["--server", str(tmp_path / "server")], tmp_path / "secret"
    secret.write_text("four words are enough\n")
    phrase = ["--backup-passphrase-file", str(secret)]
    made = ready("backup", "create", str(tmp_path / "disk"), *phrase, "--json").data["folder"]
    return {
        ("init",): ["--home", str(tmp_path / "new"), "init", "--key", "file", "--insecure-key-file"],
        ("correct",): ["--last", "right"],
        ("log", "search"): ["words"],
        ("log", "show"): [said.id],
        ("log", "export"): [str(tmp_path / "export")],
        ("log", "import"): [str(tmp_path / "export")],
        ("log", "rm"): [said.id, "--yes"],
        ("key", "change-passphrase"): ["--key", "file", "--insecure-key-file"],
        ("backup", "create"): [str(tmp_path / "disk"), *phrase],
        ("backup", "verify"): [made, *phrase],
        ("backup", "restore"): [made, *phrase, "--replace", "--yes", "--key", "file", "--insecure-key-file"],
        ("wipe",): ["--yes"],
        ("forget",): [forgotten.id, "--yes"],
        ("report",): ["--to", str(tmp_path / "report")],
        ("adapter", "show"): [name],
        ("adapter", "use"): [name, "--yes"],
        ("privacy", "plan"): ["--noise", "3"],
        ("fleet", "init"): [*server, "--quorum", "3"],
        ("fleet", "enroll"): ["ada", *server],
        ("fleet", "nodes"): server,
        ("fleet", "round", "status"): server,
        ("fleet", "round", "halt"): server,
        ("fleet", "round", "resume"): server,
        ("fleet", "release", "list"): server,
        ("gateway", "add-token"): ["editor", "--scope", "chat"],
        ("gateway", "remove-token"): ["editor", "--yes"],
        ("service", "install"): ["--print"],
        ("completion", "show"): ["bash"],
        ("completion", "install"): ["fish"],
    }


def test_every_command_writes_the_published_keys(
    ready: Call, busy: dict[tuple[str, ...], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the table, one after the other, on one home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for command in PUBLISHED:
        if command not in ELSEWHERE:
            given = busy.get(command, [])
            words = given if command == ("init",) else [*command, *given]
            assert ready(*words, "--json").keys(*command), command
