"""Reading a recorded log: what is accepted, what is refused and by which line number."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.replay_log import Event, Log, read_log, read_pairs
from store.errors import UsageError

GOOD = {"user": "ann", "time": 1, "prompt": "lights", "answer": "light.on()"}


def _write(folder: Path, *lines: object) -> Path:
    path = folder / "log.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_events_are_grouped_by_user_in_order_of_appearance(tmp_path: Path) -> None:
    """Two interleaved users become two logs, each in time order."""
    path = _write(tmp_path, GOOD, {**GOOD, "user": "bob", "time": 0}, {**GOOD, "time": 2.5, "kind": "teach"})
    log = read_log(path)
    assert list(log.users) == ["ann", "bob"]
    assert [event.time for event in log.users["ann"]] == [1.0, 2.5]
    assert log.events == 3


def test_a_reject_has_no_answer(tmp_path: Path) -> None:
    """A thumbs-down is kept as an event without an answer."""
    log = read_log(_write(tmp_path, {**GOOD, "kind": "reject", "answer": None}))
    assert log.users["ann"] == (Event(1, "ann", 1.0, "lights", None),)


BAD_LINES = [
    ("{not json", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ({**GOOD, "user": ""}, "user"),
    ({**GOOD, "prompt": 7}, "prompt"),
    ({**GOOD, "answer": None}, "answer"),
    ({**GOOD, "kind": "reject"}, "a reject has no answer"),
    ({**GOOD, "time": True}, "time"),
    ('{"user": "ann", "time": NaN, "prompt": "a", "answer": "b"}', "time"),
    ({**GOOD, "prompt": "a\0b"}, "NUL"),
    ({**GOOD, "answer": "x" * 70_000}, "64 KiB"),
    ('{"user": "ann", "time": 2, "prompt": "\\ud800", "answer": "b"}', "Unicode"),
    ({**GOOD, "time": 0}, "earlier"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_stops_with_its_number_and_no_text_of_the_user(tmp_path: Path, line: object, reason: str) -> None:
    """The message names line 3 and the reason, and never quotes the line."""
    path = _write(tmp_path, GOOD, "", line)
    with pytest.raises(UsageError) as caught:
        read_log(path)
    assert caught.value.code == "bad_line"
    assert "line 3" in caught.value.message
    assert reason in caught.value.message
    assert "light.on" not in caught.value.message


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_keep_going_leaves_the_bad_line_out_and_lists_it(tmp_path: Path, line: object, reason: str) -> None:
    """The lines around a bad one are still used."""
    log = read_log(_write(tmp_path, GOOD, line, {**GOOD, "time": 9}), keep_going=True)
    assert [fault.line for fault in log.faults] == [2]
    assert reason in log.faults[0].reason
    assert [event.time for event in log.users["ann"]] == [1.0, 9.0]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    """Broken bytes are a fault of their line, not of the program."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    assert [fault.reason for fault in read_log(path, keep_going=True).faults] == ["not UTF-8"]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """Files saved by Windows editors are read."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_log(path).events == 1


@pytest.mark.parametrize(("text", "code"), [("", "empty_log"), ("\n\n", "empty_log"), (None, "unreadable")])
def test_a_file_without_events_is_refused(tmp_path: Path, text: str | None, code: str) -> None:
    """An empty or missing file is a clear error, not an empty report."""
    path = tmp_path / "log.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_log(path)
    assert caught.value.code == code


def test_a_regression_set_is_read_and_a_bad_line_of_it_named(tmp_path: Path) -> None:
    """Extra fields are ignored; a line without an answer stops with its number."""
    path = _write(tmp_path, {"prompt": "a", "answer": "b", "count": 3})
    assert [(pair.prompt, pair.answer) for pair in read_pairs(path)] == [("a", "b")]
    with pytest.raises(UsageError, match="line 2"):
        read_pairs(_write(tmp_path, {"prompt": "a", "answer": "b"}, {"prompt": "a"}))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever the file holds, the outcome is a log or a usage error."""
    path = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    path.write_bytes(data)
    with suppress(UsageError):
        assert isinstance(read_log(path, keep_going=True), Log)
