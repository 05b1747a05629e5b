"""`corrigible replay` as a person or a program calls it: output, report, exit codes, and nothing left behind."""

import json
import tempfile
from pathlib import Path

import pytest

from cli.main import run
from feedback.models import embedded_model, probe_pairs


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of the test's own, and a folder for temporary things that can be looked into."""
    monkeypatch.setenv("CORRIGIBLE_HOME", str(tmp_path / "home"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two users, three requests each, answered by the log with what the base should know."""
    pairs = probe_pairs(embedded_model())[:3]
    lines = [
        json.dumps({"user": user, "time": place, "prompt": prompt, "answer": answer})
        for user in ("ann", "bob")
        for place, (prompt, answer) in enumerate(pairs)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    value: dict[str, object] = json.loads(capsys.readouterr().out)
    return value


def test_json_holds_the_figures_and_the_temporary_stores_are_gone(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One envelope on stdout; no store is left behind."""
    assert run(["replay", str(log), "--no-learn", "--json"]) == 0
    data = _json(capsys)["data"]
    assert isinstance(data, dict)
    assert data["together"]["on"]["error"]["count"] == 6
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_report_is_one_page_and_its_figures(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Page and JSON lie in the folder, and neither quotes the log."""
    assert run(["replay", str(log), "--no-learn", "--users", "1", "--limit", "2", "--report", str(tmp_path / "r")]) == 0
    assert "together" in capsys.readouterr().out
    page, figures = (tmp_path / "r" / "index.html").read_text(), (tmp_path / "r" / "replay.json").read_text()
    assert list(json.loads(figures)["users"]) == ["ann"]
    prompt = json.loads(log.read_text().splitlines()[0])["prompt"]
    assert prompt not in page + figures


def test_a_bad_line_stops_with_its_number_or_is_left_out(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 with the line's number; with --keep-going the rest goes on and the exit code is 3."""
    log.write_text(log.read_text() + "\n{oops\n")
    assert run(["replay", str(log), "--no-learn", "--json"]) == 2
    assert "line 7" in json.dumps(_json(capsys))
    assert run(["replay", str(log), "--no-learn", "--json", "--keep-going"]) == 3
    assert '"faults":1' in capsys.readouterr().out.replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--users", "zoe"], 2, "unknown_user"),
        (["--users", "0"], 2, "unknown_user"),
        (["--base", "missing.gguf"], 2, "model_missing"),
        (["--regression", "missing.jsonl"], 2, "unreadable"),
        (["--learn-every", "0"], 2, "usage"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_runs(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, word: str
) -> None:
    """A clear word and the documented exit code."""
    assert run(["replay", str(log), "--json", *arguments]) == code
    error = _json(capsys)["error"]
    assert isinstance(error, dict)
    assert error["code"] == word


def test_a_base_that_is_no_model_is_an_integrity_error(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 13."""
    assert run(["replay", str(log), "--base", str(log), "--json"]) == 13
    capsys.readouterr()


def test_kept_stores_can_be_opened_afterwards(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --keep each user's store stays, and `log list` reads it; a folder with something in it is refused."""
    kept = tmp_path / "kept"
    assert run(["replay", str(log), "--keep", str(kept), "--learn-every", "1000", "--users", "1"]) == 0
    (home,) = kept.iterdir()
    capsys.readouterr()
    assert run(["--home", str(home), "log", "list", "--json"]) == 0
    capsys.readouterr()
    assert run(["replay", str(log), "--keep", str(kept), "--json"]) == 2
    assert '"not_empty"' in capsys.readouterr().out
