"""Reports and failures leave as documented, and nothing of the owner's leaves by accident."""

import errno
import json
from pathlib import Path

import click
import pytest

from cli.output import (
    EXIT_CODES,
    Failure,
    Report,
    clean,
    emit,
    fail,
    failure_of,
    frames,
    log_frames,
    one_line,
    short,
    table,
    when,
)
from store import errors

SECRET = "my sister's birthday"


def raised(error: BaseException) -> BaseException:
    """Return `error` with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_report_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The envelope is versioned and ends with one newline."""
    emit(Report({"a": "ü"}, lambda: "words"), as_json=True)
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {"schema": 1, "ok": True, "data": {"a": "ü"}}


def test_words_go_to_stdout_and_failures_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe receives the data alone."""
    emit(Report({}, lambda: "words"), as_json=False)
    assert fail(Failure("code", "It broke.", "Mend it.", 13), as_json=False) == 13
    captured = capsys.readouterr()
    assert captured.out == "words\n"
    assert captured.err == "corrigible: It broke.\n  Mend it.\n"


def test_a_failure_is_json_on_stdout_when_json_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads errors where it reads data."""
    fail(Failure("code", "It broke.", "", 2), as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == {"code": "code", "message": "It broke.", "hint": ""}
    assert captured.err == ""


FAMILIES = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_of_errors_has_a_documented_exit_code(kind: type[errors.CorrigibleError]) -> None:
    """The table in the help and the README misses none."""
    failure = failure_of(kind("Message.", hint="Hint."), lambda _: None)
    assert (failure.code, failure.message, failure.hint) == (kind.code, "Message.", "Hint.")
    assert failure.exit_code in EXIT_CODES


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (click.Abort(), "interrupted", 130),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", 1),
        (OSError(errno.EACCES, "Permission denied", "/x"), "permission", 2),
        (click.UsageError("No."), "usage", 2),
        (click.FileError("x"), "usage", 2),
        (ZeroDivisionError(SECRET), "internal", 1),
    ],
)
def test_foreign_errors_are_named_without_their_text(error: BaseException, code: str, exit_code: int) -> None:
    """What another library says may quote the owner; it is not shown."""
    failure = failure_of(error, lambda _: None)
    assert (failure.code, failure.exit_code) == (code, exit_code)
    assert SECRET not in failure.message + failure.hint


def test_an_unexpected_error_leaves_frames_without_text(tmp_path: Path) -> None:
    """The log says where it broke, in a file for the owner alone, and quotes nothing."""
    try:
        try:
            int(SECRET)
        except ValueError as inner:
            raise RuntimeError(SECRET) from inner
    except RuntimeError as error:
        path = log_frames(error, tmp_path / "logs")
    assert path is not None
    text = path.read_text()
    assert "RuntimeError" in text
    assert "ValueError" in text
    assert "test_output.py" in text
    assert SECRET not in text
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_is_no_second_error(tmp_path: Path) -> None:
    """A full disk must not hide the first failure."""
    (tmp_path / "logs").write_text("a file in the way")
    assert log_frames(raised(ValueError()), tmp_path / "logs") is None


def test_frames_of_nothing_are_nothing() -> None:
    """An error without a traceback names its type."""
    assert frames(ValueError(SECRET)) == ["ValueError"]


def test_control_characters_cannot_drive_the_terminal() -> None:
    """Escape sequences in stored or generated text are shown, not obeyed."""
    assert clean("a\x1b[31mb\tc\n\x9b\u202e") == "a␛[31mb\tc\n \N{REPLACEMENT CHARACTER}"


def test_tables_do_not_read_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets in a request are text."""
    emit(Report({}, lambda: table("a", rows=[["[bold]x[/bold]"]])), as_json=False)
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_short_forms() -> None:
    """Ids, times and long texts have one short form each."""
    assert short("sha256:" + "ab" * 32) == "abababababab"
    assert one_line("a\nb " * 40, 8) == "a b a b…"
    assert when(0).startswith(("1970", "1969"))
