"""The commands that look at and change the store, on a real encrypted one."""

import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.session import Session
from store.base import StoreBase
from store.records import Adapter, Correction, Interaction, Message, Rating, Spend, Verdict, digest
from tests.cli.helpers import Call

REQUEST, ANSWER, RIGHT = "movie time in the hall", "light.on(hall)", "light.dim(hall, 10)"


@contextmanager
def opened(home: Path) -> Iterator[StoreBase]:
    """Open the store of `home` as a command would."""
    with Session(place=home).store() as store:
        yield store


def said(number: int = 0) -> Interaction:
    """Return an interaction as `chat` would record it."""
    return Interaction(
        messages=(Message("user", f"{REQUEST} {number}"),), answer=ANSWER, model=digest(b"base"), time=1000.0 + number
    )


@pytest.fixture
def logged(ready: Call, home: Path) -> Call:
    """A home with three answers: one corrected, one approved, one plain."""
    with opened(home) as store:
        store.add_all([said(0), said(1), said(2)])
        store.add(Correction(interaction=said(0).id, corrected=RIGHT, time=2000.0))
        store.add(Rating(interaction=said(1).id, value=1, time=2001.0))
    return ready


def adapter(home: Path, name: bytes, decision: str = "adopt", base: str | None = None) -> Adapter:
    """Put an adapter and its verdict into the store."""
    with opened(home) as store:
        record = Adapter(
            digest=store.put_artefact(name), slot="personal", base=base or Session(place=home).model().digest, time=1.0
        )
        verdict = Verdict(
            adapter=record.digest,
            decision=decision,  # type: ignore[arg-type]
            reason="gain is proven",
            gain=12.5,
            lower=3.0,
            upper=20.0,
            evidence=20,
            time=2.0,
        )
        store.add_all([record, verdict])
    return record


def test_init_makes_a_store_for_its_owner_alone(ready: Call, home: Path) -> None:
    """All folders and files are closed to others, and the standing warning is said."""
    data = ready("status", "--json").data
    assert data["key"]["backend"] == "file"
    assert data["key"]["warning"]
    for path in (home, *home.rglob("*")):
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


def test_init_with_a_passphrase_file_needs_it_afterwards(call: Call, tmp_path: Path) -> None:
    """Right passphrase opens, wrong is exit 12, none is exit 11, and neither harms the store."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    assert call("--passphrase-file", str(right), "init", "--json").data["key"]["backend"] == "passphrase"
    assert call("--passphrase-file", str(right), "status").code == 0
    result = call("--passphrase-file", str(wrong), "status", "--json")
    assert (result.code, result.error["code"]) == (12, "wrong_key")
    result = call("status", "--json")
    assert (result.code, result.error["code"]) == (11, "locked")
    assert "--passphrase-file" in result.error["hint"]


@pytest.mark.parametrize("text", ["", "\n", "\xff"])
def test_a_passphrase_file_without_a_passphrase_is_refused(call: Call, tmp_path: Path, text: str) -> None:
    """An empty secret is no secret."""
    path = tmp_path / "file"
    path.write_bytes(text.encode("latin-1"))
    assert call("--passphrase-file", str(path), "init").code == 2


def test_init_takes_a_key_file_only_when_told_twice(call: Call, home: Path) -> None:
    """The insecure choice is never made by accident."""
    assert call("init", "--key", "file").code == 2
    assert call("init", "--insecure-key-file").code == 2
    assert not home.exists()


def test_init_keeps_what_is_there(ready: Call) -> None:
    """A second init changes nothing."""
    result = ready("init", "--key", "file", "--insecure-key-file", "--json")
    assert result.code == 2
    assert ready("status").code == 0


def test_init_refuses_a_file_that_is_no_model(call: Call, home: Path, tmp_path: Path) -> None:
    """A wrong --model leaves no half-made store behind."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    result = call("init", "--key", "file", "--insecure-key-file", "--model", str(path), "--json")
    assert result.code == 13
    assert not home.exists()


def test_init_remembers_the_model(call: Call, tmp_path: Path) -> None:
    """The settings name it from then on."""
    from feedback.models import embedded_model

    path = tmp_path / "mine.gguf"
    path.symlink_to(embedded_model())
    assert call("init", "--key", "file", "--insecure-key-file", "--model", str(path)).code == 0
    model = call("status", "--json").data["model"]
    assert model == {"path": str(path.resolve()), "embedded": False}


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["log", "list"],
        ["adapter", "list"],
        ["privacy", "status"],
        ["learn"],
        ["learner", "stop"],
        ["chat"],
        ["correct", "--last", "x"],
    ],
)
def test_without_a_store_everything_says_so(call: Call, words: list[str]) -> None:
    """Exit 10 and the next step."""
    result = call(*words, "--json")
    assert (result.code, result.error["code"]) == (10, "not_initialised")
    assert "corrigible init" in result.error["hint"]


def test_log_lists_what_became_of_each_answer(logged: Call) -> None:
    """Newest last, with its correction or mark."""
    views = logged("log", "list", "--json").data["interactions"]
    assert [view["id"] for view in views] == [said(number).id for number in range(3)]
    assert [view["corrected"] for view in views] == [RIGHT, None, None]
    assert [view["mark"] for view in views] == ["corrected", "approved", ""]
    assert [view["id"] for view in logged("log", "list", "--limit", "1", "--json").data["interactions"]] == [said(2).id]
    assert RIGHT in logged("log", "list").out


def test_log_finds_by_word(logged: Call) -> None:
    """Requests, answers and corrections are searched."""
    assert logged("log", "search", "dim", "--json").data["count"] == 1
    assert logged("log", "search", "movie", "--json").data["count"] == 3
    assert logged("log", "search", "--", "...", "--json").code == 2


def test_log_shows_one_in_full(logged: Call) -> None:
    """A short id is enough."""
    short = said(0).id.removeprefix("sha256:")[:8]
    data = logged("log", "show", short, "--json").data
    assert data["messages"] == [{"role": "user", "content": f"{REQUEST} 0"}]
    assert data["corrected"] == RIGHT
    assert ANSWER in logged("log", "show", short).out
    assert logged("log", "show", "0" * 8, "--json").error["code"] == "not_found"


def test_log_removal_asks_and_names_what_goes(logged: Call) -> None:
    """Without --yes and without a person nothing is removed."""
    result = logged("log", "rm", said(0).id, "--json")
    assert (result.code, result.error["code"]) == (2, "confirmation_needed")
    assert "answers 1, corrections and ratings 1" in result.error["message"]
    assert logged("log", "list", "--json").data["count"] == 3


def test_log_removal_takes_what_hangs_on_it(logged: Call) -> None:
    """The interaction and its correction are gone; the others stay."""
    data = logged("log", "rm", said(0).id, "--yes", "--json").data
    assert len(data["removed"]) == 2
    assert logged("log", "list", "--json").data["count"] == 2
    assert logged("log", "search", "dim", "--json").data["count"] == 0


def test_log_removal_of_a_list_goes_on_past_an_unknown_id(logged: Call) -> None:
    """Exit 3: partly done, and which part not."""
    result = logged("log", "rm", said(1).id, "0" * 12, "--yes", "--json")
    assert result.code == 3
    assert [one["id"] for one in result.data["failed"]] == ["0" * 12]
    assert logged("log", "rm", "0" * 12, "--yes", "--json").code == 2


def test_log_removal_names_the_adapters_that_learned_from_it(logged: Call, home: Path) -> None:
    """Forgetting the text does not make an adapter forget; the owner is told."""
    with opened(home) as store:
        (example,) = [one for one in store.examples() if one.rejected]
        name = store.put_artefact(b"adapter")
        store.add(Adapter(digest=name, slot="personal", base=digest(b""), examples=(example.id,), time=1.0))
    result = logged("log", "rm", said(0).id, "--yes", "--json")
    assert result.data["adapters_that_learned_from_them"] == [name]


def test_what_is_exported_can_be_imported_elsewhere(logged: Call, tmp_path: Path) -> None:
    """Sealed by default; plain on request; twice adds nothing; a bad line is named and left out."""
    sealed, plain = tmp_path / "sealed", tmp_path / "plain.jsonl"
    assert logged("log", "export", str(sealed), "--json").data["sealed"] is True
    assert REQUEST.encode() not in sealed.read_bytes()
    assert logged("log", "import", str(sealed), "--json").data["added"] == 0
    assert logged("log", "export", str(plain), "--plaintext").code == 0
    assert logged("log", "export", str(plain), "--plaintext", "--json").error["code"] == "confirmation_needed"
    plain.write_bytes(plain.read_bytes() + b"not json\n")
    other = ("--home", str(tmp_path / "other"))
    assert logged(*other, "init", "--key", "file", "--insecure-key-file").code == 0
    result = logged(*other, "log", "import", str(plain), "--json")
    assert result.code == 3
    assert result.data["added"] == 5
    assert [one["entry"] for one in result.data["skipped"]] == [6]
    assert logged(*other, "log", "list", "--json").data == logged("log", "list", "--json").data


def test_correct_by_id_by_last_and_from_stdin(logged: Call) -> None:
    """Three ways to say what was right; the newest counts."""
    short = said(1).id.removeprefix("sha256:")[:8]
    assert logged("correct", short, "a", "--json").data["interaction"] == said(1).id
    assert logged("correct", "--last", "b", "--json").data["interaction"] == said(2).id
    assert logged("correct", "--last", "--stdin", stdin="line one\nline two\n").code == 0
    assert logged("log", "show", said(2).id, "--json").data["corrected"] == "line one\nline two"


def test_a_private_correction_is_marked(logged: Call) -> None:
    """--private keeps it out of every shared update."""
    assert logged("correct", "--last", "x", "--private", "--json").data["share"] is False


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["correct", "--last", ""], "empty"),
        (["correct", "--last", ANSWER], None),
        (["correct", "--last", "x" * 70_000], "too_long"),
        (["correct", "00000000", "x"], "not_found"),
        (["correct", "zz", "x"], "bad_id"),
        (["correct", "x"], "usage"),
        (["correct", "--last", "a", "b"], "usage"),
    ],
)
def test_a_correction_that_cannot_teach_is_refused(logged: Call, words: list[str], code: str | None) -> None:
    """Exit 2 and a word for the reason; the error never quotes the text."""
    result = logged(*words, "--json")
    assert result.code == 2
    assert code is None or result.error["code"] == code
    assert ANSWER not in result.error["message"]


def test_correct_on_an_empty_log_says_so(ready: Call) -> None:
    """There is nothing to correct yet."""
    assert "logged" in ready("correct", "--last", "x", "--json").error["message"]


def test_adapters_are_listed_with_their_verdicts(ready: Call, home: Path) -> None:
    """Rejected ones too."""
    good, bad = adapter(home, b"good"), adapter(home, b"bad", "reject")
    views = {view["digest"]: view for view in ready("adapter", "list", "--json").data["adapters"]}
    assert (views[good.digest]["decision"], views[bad.digest]["decision"]) == ("adopt", "reject")
    data = ready("adapter", "show", good.digest, "--json").data
    assert data["verdict"]["gain"] == 12.5
    assert "12.5 points on 20 held-out requests" in ready("adapter", "show", good.digest).out


def test_an_adapter_is_used_and_rolled_back_by_the_owners_word(ready: Call, home: Path) -> None:
    """use, rollback and none; what serves is in status."""
    record = adapter(home, b"good")
    assert ready("adapter", "use", record.digest[7:19]).code == 0
    assert ready("status", "--json").data["serving"]["personal"] == record.digest
    assert ready("adapter", "rollback", "--json").data == {"slot": "personal", "before": record.digest, "after": None}
    result = ready("adapter", "rollback", "--json")
    assert (result.code, result.error["code"]) == (15, "nothing_served")
    assert ready("adapter", "use", "none").code == 0


def test_a_refused_adapter_needs_a_yes(ready: Call, home: Path) -> None:
    """The owner may overrule the gate, knowingly."""
    record = adapter(home, b"bad", "reject")
    assert ready("adapter", "use", record.digest).code == 2
    assert ready("adapter", "use", record.digest, "--yes").code == 0


def test_an_adapter_of_another_base_is_never_served(ready: Call, home: Path) -> None:
    """Exit 13, and what to do."""
    record = adapter(home, b"foreign", base=digest(b"another"))
    result = ready("adapter", "use", record.digest, "--yes", "--json")
    assert (result.code, result.error["code"]) == (13, "wrong_base")


def test_unknown_adapters_are_a_usage_error(ready: Call) -> None:
    """Too short or unknown."""
    assert ready("adapter", "show", "abc", "--json").error["code"] == "not_found"
    assert ready("adapter", "show", "0" * 12).code == 2


def test_consent_is_shown_given_and_withdrawn(ready: Call) -> None:
    """Logging and learning are on after init, sharing and asking upstream are off; a word takes effect at once."""
    assert ready("privacy", "consent", "--json").data["consents"] == {
        "log": True, "learn": True, "share": False, "upstream": False,
    }  # fmt: skip
    assert ready("privacy", "consent", "learn", "--withdraw", "--json").data["consents"]["learn"] is False
    assert ready("privacy", "consent", "learn", "--grant").code == 2
    assert ready("privacy", "consent", "learn", "--grant", "--yes", "--json").data["consents"]["learn"] is True
    assert ready("privacy", "consent", "log").code == 2


def test_sharing_is_agreed_to_with_a_fleet_only(ready: Call) -> None:
    """Without a fleet there is nobody to agree with: exit 15."""
    result = ready("privacy", "consent", "share", "--grant", "--yes", "--json")
    assert (result.code, result.error["code"]) == (15, "no_fleet")


def spend(number: int) -> Spend:
    """Return a ledger entry that cost about epsilon 6."""
    return Spend(
        run=f"run {number}",
        unit="correction",
        noise_multiplier=1.0,
        sampling_rate=0.3,
        steps=20,
        clipping_norm=1.0,
        delta=1e-6,
        epsilon=6.0,
        total=6.0 * (number + 1),
        payload=digest(b"x"),
        time=time.time(),
    )


def test_the_ledger_and_budget_add_up(ready: Call, home: Path) -> None:
    """What was spent is shown with unit and delta."""
    with opened(home) as store:
        store.add(spend(0))
    budget = ready("privacy", "status", "--json").data["budget"]
    trust = "noise on the device, the server is not trusted"
    assert budget == {
        "runs": 1, "epsilon": 6.0, "delta": 1e-6, "unit": "correction", "adjacency": "add or remove one correction",
        "trust": trust, "cap": 8.0,
    }  # fmt: skip
    assert len(ready("privacy", "ledger", "--json").data["spends"]) == 1
    assert "correction" in ready("privacy", "status").out


def test_a_plan_over_the_cap_is_refused(ready: Call) -> None:
    """Exit 14, counting what is spent already; nothing is spent by asking."""
    data = ready("privacy", "plan", "--epsilon", "3", "--json").data
    assert 2.9 < data["epsilon_total"] <= 3
    assert data["epsilon_per_round"] < data["epsilon_total"]
    result = ready("privacy", "plan", "--noise", "0.6", "--steps", "100", "--json")
    assert (result.code, result.error["code"]) == (14, "budget_exhausted")
    assert ready("privacy", "plan").code == 2
    assert ready("privacy", "status", "--json").data["budget"]["runs"] == 0


def test_a_whole_store_verifies(logged: Call) -> None:
    """Every record is in the chain."""
    assert logged("privacy", "verify", "--json").data["records"] >= 7
    checks = logged("doctor", "--json").data
    assert (checks["fail"], checks["warn"]) == (0, 1)
    assert {check["name"] for check in checks["checks"] if check["state"] == "warn"} == {"key"}


def test_a_damaged_store_is_named_by_verify_and_doctor(logged: Call, home: Path) -> None:
    """Exit 13, no traceback; nothing is opened that cannot be trusted."""
    database = max(home.rglob("store-1/*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    raw = bytearray(database.read_bytes())
    for place in range(4096, len(raw), 512):
        raw[place] ^= 0xFF
    database.write_bytes(raw)
    for words in (["privacy", "verify"], ["doctor"], ["log", "list"]):
        result = logged(*words, "--json")
        assert result.code == 13, (words, result.out)


def test_doctor_without_a_store_says_what_is_missing(call: Call) -> None:
    """It still checks what it can, and ends with the first failure's code."""
    result = call("doctor", "--json")
    assert result.code == 10
    states = {check["name"]: check["state"] for check in result.data["checks"]}
    assert states["driver"] == states["model"] == "ok"
    assert states["key"] == states["store"] == "fail"


def test_doctor_sees_files_open_to_others(ready: Call, home: Path) -> None:
    """A warning with the command that mends it."""
    (home / "data").chmod(0o755)
    (check,) = [one for one in ready("doctor", "--json").data["checks"] if one["name"] == "files"]
    assert check["state"] == "warn"
    assert "chmod" in check["remedy"]


def test_a_wrong_setting_stops_every_command_that_reads_it(ready: Call, home: Path) -> None:
    """Exit 2 names the setting; doctor reports it as a failure of its own."""
    (home / "config.toml").write_text("[model]\ntreads = 2\n")
    assert ready("status", "--json").error["code"] == "config"
    assert ready("doctor").code == 2


def test_a_missing_model_is_a_clear_error(ready: Call, home: Path) -> None:
    """The settings name a file that is gone."""
    (home / "config.toml").write_text("[model]\npath = '/none/model.gguf'\n")
    result = ready("chat", "--json", stdin="hello\n")
    assert (result.code, result.error["code"]) == (2, "model_missing")


def test_nobody_to_stop_is_exit_16(ready: Call) -> None:
    """`learner stop` without a learner."""
    result = ready("learner", "stop", "--json")
    assert (result.code, result.error["code"]) == (16, "daemon_unreachable")
