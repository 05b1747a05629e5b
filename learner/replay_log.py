"""Reading somebody's log: one JSON object a line, in time order for each user.

Knows the file format and nothing of models. What is wrong with a line is told by its number and a reason
word, never by quoting the line.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import UsageError

MAX_TEXT = 64 * 1024  # bytes of one prompt or answer


@dataclass(frozen=True, slots=True)
class Event:
    """One request of one user and what the right answer was (None: a thumbs-down without a better answer)."""

    line: int
    user: str
    time: float  # seconds, on the log's own clock
    prompt: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that cannot be used, by number, with the reason in words."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """All usable events by user, users in order of first appearance, and the lines left out."""

    users: Mapping[str, tuple[Event, ...]]
    faults: tuple[Fault, ...] = ()

    @property
    def events(self) -> int:
        """Number of usable events over all users."""
        return sum(len(events) for events in self.users.values())


class _BadLine(ValueError):
    """Carries the reason a line is refused."""


def read_log(path: Path, *, keep_going: bool = False) -> Log:
    """Read a JSONL log of ``{"user","time","prompt","answer"[,"kind"]}``.

    Args:
        path: the file; UTF-8, blank lines ignored.
        keep_going: leave bad lines out and list them, instead of stopping at the first.

    Raises:
        UsageError: the file cannot be read (`unreadable`), a line is bad and `keep_going` is off (`bad_line`),
            or no line is usable (`empty_log`).
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(
            f"cannot read {path.name}: {error.strerror}", hint="Check the path.", code="unreadable"
        ) from error
    users: dict[str, list[Event]] = {}
    faults: list[Fault] = []
    for number, outcome in _parsed(lines):
        fault = outcome if isinstance(outcome, Fault) else _order_fault(outcome, users)
        if fault is None and isinstance(outcome, Event):
            users.setdefault(outcome.user, []).append(outcome)
        elif fault is not None and keep_going:
            faults.append(fault)
        elif fault is not None:
            raise UsageError(
                f"{path.name}, line {number}: {fault.reason}",
                hint="Mend the line, or leave bad lines out with --keep-going.",
                code="bad_line",
            )
    if not users:
        raise UsageError(f"{path.name} holds no usable event", hint=FORMAT_HINT, code="empty_log")
    return Log({user: tuple(events) for user, events in users.items()}, tuple(faults))


FORMAT_HINT = 'Each line is {"user": "…", "time": seconds, "prompt": "…", "answer": "…"}.'


def _parsed(lines: Iterable[bytes]) -> Iterator[tuple[int, Event | Fault]]:
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            yield number, parse_line(number, raw)
        except _BadLine as error:
            yield number, Fault(number, str(error))


def parse_line(number: int, raw: bytes) -> Event:
    """Return the event on one line; raises ValueError with the reason (never the text) when it is unusable."""
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise _BadLine("not UTF-8") from None
    except (json.JSONDecodeError, RecursionError):
        raise _BadLine("not JSON") from None
    if not isinstance(value, dict):
        raise _BadLine("not a JSON object")
    return Event(
        line=number,
        user=_text(value, "user"),
        time=_time(value),
        prompt=_text(value, "prompt"),
        answer=_answer(value),
    )


def _answer(value: dict[str, Any]) -> str | None:
    if value.get("kind") == "reject":
        if value.get("answer") is not None:
            raise _BadLine("a reject has no answer")
        return None
    return _text(value, "answer")


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.strip():
        raise _BadLine(f"{key} is missing or empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _BadLine(f"{key} is not valid Unicode") from None
    if "\0" in text or size > MAX_TEXT:
        raise _BadLine(f"{key} holds a NUL or is over {MAX_TEXT // 1024} KiB")
    return text


def _time(value: dict[str, Any]) -> float:
    time = value.get("time")
    if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
        raise _BadLine("time is not a number of seconds")
    return float(time)


def _order_fault(event: Event, users: Mapping[str, list[Event]]) -> Fault | None:
    """A fault when the event lies before its user's last one."""
    earlier = users.get(event.user)
    if earlier and event.time < earlier[-1].time:
        return Fault(event.line, "earlier than the user's line before it")
    return None


@dataclass(frozen=True, slots=True)
class Pair:
    """A request and its right answer, from a regression set."""

    prompt: str
    answer: str


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read a regression set, JSONL of ``{"prompt","answer"}``; a bad line stops with its number (UsageError)."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(
            f"cannot read {path.name}: {error.strerror}", hint="Check the path.", code="unreadable"
        ) from error
    pairs: list[Pair] = []
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            value = json.loads(raw)
            if not isinstance(value, dict):
                raise _BadLine("not a JSON object")
            pairs.append(Pair(_text(value, "prompt"), _text(value, "answer")))
        except ValueError as error:
            reason = str(error) if isinstance(error, _BadLine) else "not JSON"
            raise UsageError(f"{path.name}, line {number}: {reason}", code="bad_line") from None
    if not pairs:
        raise UsageError(f"{path.name} holds no pair", code="empty_log")
    return tuple(pairs)
