"""The owner's rights: take everything out, bring it in, back it up, have it forgotten, wipe it."""

import json
import os
import secrets
import shutil
import sqlite3
from pathlib import Path

import pytest

from store.backup import create_backup, ledger_entries, read_manifest, restore_backup, unlock_backup, verify_backup
from store.base import StoreBase
from store.errors import CorrigibleError, Locked, NotEligible, NotInitialised, UsageError, WrongKey
from store.exchange import Shape, export_lines, export_plain, export_sealed, import_file
from store.keys import Keys, unlock
from store.memory import MemoryStore
from store.paths import Home
from store.protectors import Argon2Cost, KeyFile, Passphrase
from store.records import Consent, Correction, Interaction, Rating, Spend
from store.retention import DAY, RetentionPolicy, apply_retention
from store.store import Store
from store.wipe import wipe, wipe_plan
from tests.store.samples import correction, interaction, rating

PHRASE = Passphrase("four words are enough", Argon2Cost.small())


def fill(store: StoreBase, number: int = 30) -> list[str]:
    """Interactions; every third corrected, every third approved."""
    ids = store.add_all([interaction(index) for index in range(number)])
    store.add_all([correction(id, index) for index, id in enumerate(ids) if index % 3 == 0])
    store.add_all([rating(id, 1, index) for index, id in enumerate(ids) if index % 3 == 1])
    return ids


def test_an_export_comes_back_equal_and_only_once(any_store: StoreBase, tmp_path: Path) -> None:
    """Export, import elsewhere: the same records in the same order; importing again adds nothing."""
    fill(any_store)
    export_plain(any_store, tmp_path / "out.jsonl", "records")
    twin = MemoryStore()
    report = import_file(twin, tmp_path / "out.jsonl")
    assert (report.format, report.added, report.known, report.skipped) == ("export", 50, 0, ())
    for kind in (Interaction, Correction, Rating):
        assert twin.all(kind) == any_store.all(kind)
    assert import_file(twin, tmp_path / "out.jsonl").known == 50
    assert import_file(any_store, tmp_path / "out.jsonl").added == 0


def test_training_pairs_have_the_usual_shape(any_store: StoreBase) -> None:
    """SFT: a conversation ending in the wanted answer; preferences: chosen and rejected."""
    fill(any_store, 6)
    sft = [json.loads(line) for line in export_lines(any_store, "sft")]
    pairs = [json.loads(line) for line in export_lines(any_store, "preferences")]
    assert [len(sft), len(pairs)] == [4, 2]
    assert sft[0]["messages"][-1] == {"role": "assistant", "content": "better 0"}
    assert pairs[0]["chosen"][0]["content"] == "better 0"
    assert pairs[0]["rejected"][0]["content"] == "answer 0"
    assert pairs[0]["prompt"][-1] == {"role": "user", "content": "question 0"}


@pytest.mark.parametrize("shape", ["records", "sft", "preferences"])
def test_a_sealed_export_shows_nothing_and_opens_with_its_secret(store: Store, tmp_path: Path, shape: Shape) -> None:
    """Sealed for the store or for a passphrase: no text on disk, wrong secrets refused, right ones import."""
    fill(store)
    keys, target, twin = unlock(store.home), tmp_path / "out", MemoryStore()
    export_sealed(store, target, shape, keys)
    assert b"question" not in target.read_bytes()
    with pytest.raises(Locked):
        import_file(twin, target)
    with pytest.raises(WrongKey):
        import_file(twin, target, keys=Keys.generate())
    if shape == "records":
        assert import_file(twin, target, keys=keys).added == 50
    export_sealed(store, target, shape, PHRASE)
    assert b"question" not in target.read_bytes()
    with pytest.raises(Locked):
        import_file(MemoryStore(), target)
    with pytest.raises(WrongKey):
        import_file(MemoryStore(), target, passphrase=lambda: "wrong")
    if shape == "records":
        assert import_file(MemoryStore(), target, passphrase=lambda: PHRASE.phrase).added == 50
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_cut_sealed_export_is_refused(store: Store, tmp_path: Path) -> None:
    """Cutting or flipping is noticed; whatever came in before that is whole."""
    fill(store, 3)
    keys, target = unlock(store.home), tmp_path / "out"
    export_sealed(store, target, "records", keys)
    whole = target.read_bytes()
    for bad in (whole[:-1], whole[:-40] + b"x" + whole[-39:], whole[:12], whole[:9]):
        target.write_bytes(bad)
        with pytest.raises(CorrigibleError) as caught:
            import_file(MemoryStore(), target, keys=keys)
        assert caught.value.exit_code in (2, 13)


def test_bad_lines_are_named_and_the_rest_goes_in(any_store: StoreBase, tmp_path: Path) -> None:
    """Each line that cannot be used is skipped with number and reason; no text in the reason; ledgers stay out."""
    good = list(export_lines(_filled_twin(), "records"))[:2]
    ledger = json.dumps({"kind": "Consent", "record": {"purpose": "share", "granted": True, "time": 1}}).encode()
    bad = [b"{canary", b'{"kind": "Interaction", "record": {"canary": 1}}', b'{"a": "canary"}', ledger]
    surrogate = good[0].replace(b"question 0", b"\\ud800")
    (tmp_path / "in").write_bytes(good[0] + b"\n".join([*bad, surrogate.strip(), good[1]]))
    report = import_file(any_store, tmp_path / "in")
    assert report.added == 2
    assert [number for number, _ in report.skipped] == [2, 3, 4, 5, 6]
    assert "canary" not in repr(report)
    assert any_store.count(Consent) == 0


def _filled_twin() -> MemoryStore:
    twin = MemoryStore()
    fill(twin, 3)
    return twin


def feedback(rating: object, answer: str = "Paris") -> dict[str, object]:
    """One entry of Open WebUI's feedback export."""
    messages = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": "capital of France?"},
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": answer, "timestamp": 1700000000},
    }
    return {
        "id": "f1", "user_id": "u", "version": 0, "type": "rating",
        "data": {"rating": rating, "model_id": "qwen", "reason": "accurate", "comment": "nice"},
        "meta": {"message_id": "m2", "chat_id": "c", "message_index": 1},
        "snapshot": {"chat": {"id": "c", "title": "t", "chat": {"history": {"messages": messages, "currentId": "m2"}}}},
        "created_at": 1700000001, "updated_at": 1700000002,
    }  # fmt: skip


def test_open_webui_feedback_becomes_interactions_and_ratings(any_store: StoreBase, tmp_path: Path) -> None:
    """Thumbs up and down, an entry without a chat, and the same file twice."""
    entries = [feedback(1), feedback("-1", "Lyon"), feedback(None, "Rome"), {"data": {}, "snapshot": None}]
    (tmp_path / "feedback.json").write_text(json.dumps(entries))
    report = import_file(any_store, tmp_path / "feedback.json")
    assert report.format == "Open WebUI feedback"
    assert (report.added, [number for number, _ in report.skipped]) == (5, [4])
    assert [item.answer for item in any_store.all(Interaction)] == ["Paris", "Lyon", "Rome"]
    assert [item.value for item in any_store.all(Rating)] == [1, -1]
    assert any_store.examples()[0].answer == "Paris"
    assert import_file(any_store, tmp_path / "feedback.json").added == 0


def llm_logs(path: Path) -> None:
    """A logs.db as the llm tool writes it."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT, "
            "options_json TEXT, response TEXT, response_json TEXT, conversation_id TEXT, duration_ms INTEGER, "
            "datetime_utc TEXT)"
        )
        rows = [
            ("01", "m", "hello", "be kind", "hi", "c1", "2024-05-01T10:00:00"),
            ("02", "m", "and now?", None, "bye", "c1", "2024-05-01T10:01:00+00:00"),
            ("03", "m", None, None, "x", "c2", "2024-05-01T10:02:00"),
            ("04", "m", "a", None, "b", None, "not a time"),
        ]
        database.executemany(
            "INSERT INTO responses (id, model, prompt, system, response, conversation_id, datetime_utc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
    database.close()


def test_the_llm_tools_log_is_read_with_its_conversations(any_store: StoreBase, tmp_path: Path) -> None:
    """Turns before a prompt belong to its request; unusable rows are counted, not fatal."""
    llm_logs(tmp_path / "logs.db")
    report = import_file(any_store, tmp_path / "logs.db")
    assert (report.format, report.added, [number for number, _ in report.skipped]) == ("llm logs.db", 2, [3, 4])
    second = any_store.all(Interaction)[1]
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]
    assert second.time - any_store.all(Interaction)[0].time == 60
    assert import_file(any_store, tmp_path / "logs.db").known == 2


def newer_llm_logs(path: Path) -> None:
    """The tables that newer versions of the llm tool write to, with a conversation, a fragment and a tool call."""
    with sqlite3.connect(path) as database:
        database.executescript(
            """CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
            CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT,
              tool_name TEXT, text TEXT, payload TEXT);
            CREATE TABLE fragments (id INTEGER PRIMARY KEY, hash TEXT, content TEXT);
            CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT,
              tip_message_hash TEXT, model TEXT, datetime_utc TEXT);
            CREATE TABLE responses (id TEXT, model TEXT, prompt TEXT, system TEXT, response TEXT,
              conversation_id TEXT, datetime_utc TEXT);
            INSERT INTO fragments VALUES (1, 'f', 'a long novel');"""
        )
        chain = [
            ("s", None, "system", "text", "be kind", None), ("u1", "s", "user", "text", "hello", None),
            ("a1", "u1", "assistant", "text", "hi", None), ("u2", "a1", "user", "text", None,
             '{"text_ref": [{"fragment": 1}, {"literal": "\\nand now?"}]}'),
            ("c", "u2", "assistant", "tool_call", None, "{}"), ("t", "c", "tool", "tool_result", None, "{}"),
            ("a2", "t", "assistant", "text", "bye", None), ("u3", None, "user", "text", "silence", None),
        ]  # fmt: skip
        for number, (hash, parent, role, kind, text, payload) in enumerate(chain):
            database.execute("INSERT INTO messages VALUES (?, ?, ?, NULL)", (hash, parent, role))
            database.execute("INSERT INTO parts VALUES (?, ?, 0, ?, NULL, ?, ?)", (number, hash, kind, text, payload))
        turns = [("1", "u1", "a1"), ("2", "t", "a2"), ("3", "u3", "u3")]
        for id, parent, tip in turns:
            moment = f"2026-05-01T10:0{id}:00+00:00"
            database.execute("INSERT INTO turns VALUES (?, 'th', ?, ?, 'm', ?)", (id, parent, tip, moment))
    database.close()


def test_the_newer_layout_of_the_llm_tools_log_is_read_too(any_store: StoreBase, tmp_path: Path) -> None:
    """Turns as chains of messages: fragments in their place, tool calls passed over, a turn without answer named."""
    newer_llm_logs(tmp_path / "logs.db")
    report = import_file(any_store, tmp_path / "logs.db")
    assert (report.format, report.added, [number for number, _ in report.skipped]) == ("llm logs.db", 2, [3])
    first, second = any_store.all(Interaction)
    assert [(message.role, message.content) for message in first.messages] == [("system", "be kind"), ("user", "hello")]
    assert (first.answer, second.answer) == ("hi", "bye")
    assert second.messages[-1].content == "a long novel\nand now?"
    assert second.time - first.time == 60
    assert import_file(any_store, tmp_path / "logs.db").known == 2


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"[1, 2]", b"[{", b"SQLite format 3\0garbage", b"CORREXPT\xff\xff{}", b"[]x"]
)
def test_files_of_unknown_format_are_refused(any_store: StoreBase, tmp_path: Path, content: bytes) -> None:
    """No format is guessed, and the refusal names the known ones."""
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        import_file(any_store, tmp_path / "in")
    assert caught.value.code == "unknown_format"
    with pytest.raises(UsageError):
        import_file(any_store, tmp_path / "absent")


def test_retention_forgets_by_age_and_kind(any_store: StoreBase) -> None:
    """Uncorrected interactions, corrected ones and ratings each by their own age; None keeps for good."""
    ids = fill(any_store, 9)
    later = 1000.0 + 10 * DAY
    assert apply_retention(any_store, RetentionPolicy(), later) == []
    gone = apply_retention(any_store, RetentionPolicy(interactions=5, corrections=None), later)
    assert set(gone) >= {id for index, id in enumerate(ids) if index % 3}
    assert any_store.count(Interaction) == 3
    assert any_store.count(Rating) == 0
    assert apply_retention(any_store, RetentionPolicy(interactions=5), later) == []
    apply_retention(any_store, RetentionPolicy(corrections=5), later)
    assert any_store.count(Correction) == 0
    assert any_store.verify().ok


def test_retention_alone_can_drop_ratings(any_store: StoreBase) -> None:
    """Ratings go, the interactions they spoke of stay."""
    fill(any_store, 9)
    apply_retention(any_store, RetentionPolicy(ratings=1), 3000.0 + 2 * DAY)
    assert (any_store.count(Interaction), any_store.count(Rating)) == (9, 0)


def test_a_clock_that_went_backwards_forgets_nothing(any_store: StoreBase) -> None:
    """Records from the future mean the clock is wrong: nothing is removed before it is set right."""
    any_store.add(interaction(0))
    with pytest.raises(NotEligible) as caught:
        apply_retention(any_store, RetentionPolicy(interactions=1), 1000.0 - 3 * DAY)
    assert caught.value.code == "clock_backwards"
    assert any_store.count(Interaction) == 1


def test_a_backup_verifies_and_restores_elsewhere(store: Store, tmp_path: Path) -> None:
    """To another folder, under a passphrase, onto a fresh home: everything is there under a new key."""
    ids = fill(store)
    store.remove(ids[5])
    name = store.put_artefact(b"adapter" * 30_000)
    store.activate("personal", name, "better")
    made = create_backup(store, unlock(store.home), tmp_path / "disk", PHRASE)
    assert made.counts["Removal"] == 1
    assert not any(b"question" in path.read_bytes() for path in made.folder.rglob("*") if path.is_file())
    modes = {path.stat().st_mode & 0o777 for path in [made.folder, *made.folder.rglob("*")]}
    assert modes == {0o700, 0o600}
    with pytest.raises(WrongKey):
        unlock_backup(made.folder, store.home, passphrase=lambda: "no")
    keys = unlock_backup(made.folder, store.home, passphrase=lambda: PHRASE.phrase)
    assert verify_backup(made.folder, keys).ok
    other = Home.at(tmp_path / "other")
    fresh = restore_backup(made.folder, keys, other, KeyFile())
    assert fresh.export() != keys.export()
    with Store.open(other, fresh) as restored:
        assert restored.verify().ok
        assert restored.all(Interaction) == store.all(Interaction)
        assert restored.artefact(name) == b"adapter" * 30_000
        assert restored.active("personal") == name
    with pytest.raises(UsageError):
        restore_backup(made.folder, keys, other, KeyFile())


def test_every_flip_in_a_backup_is_noticed(store: Store, tmp_path: Path) -> None:
    """One flip in each file and page; a missing file; a cut one; a changed manifest; read-only media are fine."""
    fill(store)
    store.put_artefact(b"a")
    keys = unlock(store.home)
    made = create_backup(store, keys, tmp_path / "disk")
    for path in made.folder.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert verify_backup(made.folder, keys).ok
    for path in [file for file in made.folder.rglob("*") if file.is_file()]:
        path.chmod(0o600)
        whole = path.read_bytes()
        for position in range(len(whole) // 3, len(whole), max(1, len(whole) // 5)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 8]) + whole[position + 1 :])
            assert _noticed(made.folder, keys), path.name
        path.write_bytes(whole[:-1])
        assert _noticed(made.folder, keys), path.name
        path.write_bytes(whole)
    assert verify_backup(made.folder, keys).ok


def _noticed(folder: Path, keys: Keys) -> bool:
    try:
        return not verify_backup(folder, keys).ok
    except CorrigibleError:
        return True


def test_restoring_never_gives_privacy_budget_back(store: Store, tmp_path: Path) -> None:
    """Replacing a store by an older copy keeps the spends made since."""
    home, keys = store.home, unlock(store.home)
    fill(store, 3)
    made = create_backup(store, keys, tmp_path / "disk")
    spend = Spend(
        run="r", unit="correction", noise_multiplier=1.0, sampling_rate=0.1, steps=1, clipping_norm=1.0, delta=1e-6,
        epsilon=1.0, total=1.0, time=5.0,
    )  # fmt: skip
    store.add_all([spend, interaction(77)])
    carry = ledger_entries(store)
    with pytest.raises(Locked):
        restore_backup(made.folder, keys, home, KeyFile(), replace=True, carry=carry)
    store.close()
    with pytest.raises(UsageError) as caught:
        restore_backup(made.folder, keys, home, KeyFile())
    assert caught.value.code == "exists"
    fresh = restore_backup(made.folder, keys, home, KeyFile(), replace=True, carry=carry)
    with Store.open(home, fresh) as restored:
        assert restored.all(Spend) == [spend]
        assert restored.count(Interaction) == 3
        assert restored.verify().ok
        assert not restored.damage


def test_a_folder_that_is_no_backup_is_refused(home: Home, tmp_path: Path) -> None:
    """An empty folder and one with only a manifest are named as what they are."""
    with pytest.raises(UsageError) as caught:
        unlock_backup(tmp_path, home)
    assert caught.value.code == "not_a_backup"
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(NotInitialised):
        read_manifest(tmp_path, Keys.generate())


def test_wiping_takes_the_keys_first_and_leaves_nothing(store: Store, home: Home) -> None:
    """The plan names it all; while the store is open elsewhere it is refused; afterwards init works again."""
    fill(store)
    store.put_artefact(b"x")
    plan = [path for path, _ in wipe_plan(home)]
    assert plan[0] == home.data / "insecure-" or plan[0].name.startswith(("insecure-", "key"))
    with pytest.raises(Locked):
        wipe(home)
    store.close()
    assert wipe(home) == plan
    assert list(home.data.iterdir()) == []
    with pytest.raises(NotInitialised):
        unlock(home)
    assert wipe(home) == []
    Store.create(home, KeyFile()).close()


def test_removed_text_is_in_no_page(home: Home) -> None:
    """After removal no decrypted page, index and free pages included, holds the end of a removed word."""
    words = [secrets.token_hex(12) for _ in range(800)]
    with Store.create(home, KeyFile()) as store:
        ids = store.add_all([interaction(number, f"say {word} now") for number, word in enumerate(words[:400])])
        store.add_all([correction(id, 0, word) for id, word in zip(ids, words[400:], strict=True)])
        store.remove_all(ids[:300])
        assert (home.generation(1) / "store.db-wal").stat().st_size == 0
        pages = decrypted(home)
    found = [word[-12:].encode() in pages for word in words]
    assert found == ([False] * 300 + [True] * 100) * 2


def decrypted(home: Home) -> bytes:
    """The raw content of every page, free ones included, decrypted page by page."""
    from tools.torture.pages import decrypted_pages

    return b"".join(decrypted_pages(home.generation(1) / "store.db", unlock(home).sub("database")))


@pytest.mark.parametrize("where", ["home", "data", "state"])
def test_a_symbolic_link_instead_of_a_folder_is_refused(home: Home, tmp_path: Path, where: str) -> None:
    """Nothing is written through a link."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = {"home": home.root, "data": home.data, "state": home.state}[where]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(UsageError) as caught:
        Store.create(home, KeyFile())
    assert caught.value.code == "symlink"
    assert list(target.iterdir()) == []


def test_a_file_instead_of_a_folder_is_refused(home: Home) -> None:
    """So is a file in its place."""
    home.root.write_text("")
    with pytest.raises(UsageError) as caught:
        Store.create(home, KeyFile())
    assert caught.value.code == "not_a_folder"


def test_a_store_without_its_key_file_is_not_overwritten(home: Home) -> None:
    """If key.json was lost, init says so instead of making an empty store over the old one."""
    Store.create(home, KeyFile()).close()
    shutil.move(home.key_file, home.root / "saved")
    with pytest.raises(UsageError) as caught:
        Store.create(home, KeyFile())
    assert caught.value.code == "orphan_store"
    shutil.move(home.root / "saved", home.key_file)
    with pytest.raises(UsageError) as caught:
        Store.create(home, KeyFile())
    assert caught.value.code == "exists"
    Store.open(home, unlock(home)).close()


def test_an_old_sqlite_is_refused_with_the_reason() -> None:
    """Versions with the WAL-reset bug never open a store."""
    from store.engine import check_driver

    check_driver("3.51.3")
    check_driver("3.53.4")
    for version in ("3.51.2", "3.51.1", "3.45.0"):
        with pytest.raises(CorrigibleError) as caught:
            check_driver(version)
        assert caught.value.code == "sqlite_too_old"


def test_the_platform_folders_and_the_override(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CORRIGIBLE_HOME moves everything; an explicit folder wins; without both the platform decides."""
    monkeypatch.setenv("CORRIGIBLE_HOME", str(tmp_path / "moved"))
    assert Home.locate().data == tmp_path / "moved" / "data"
    assert Home.locate(tmp_path / "x").data == tmp_path / "x" / "data"
    monkeypatch.delenv("CORRIGIBLE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(variable)
    assert tmp_path in Home.locate().data.parents
