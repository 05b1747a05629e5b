"""Reads what other programs exported: Open WebUI's feedback JSON and the `llm` tool's logs.db.

Pure readers: they yield records or the reason why an entry is left out, never the entry's text.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import quote

from store.codec import encode
from store.errors import UsageError
from store.records import Interaction, Message, Rating, Record, Role

ROLES = get_args(Role)
LLM_COLUMNS = {"id", "model", "prompt", "system", "response", "conversation_id", "datetime_utc"}


class Imported(NamedTuple):
    """The records of one entry of a foreign file, or why it has none."""

    number: int  # line, element or row, from 1
    content: list[Record] | str


def from_feedback(raw: bytes) -> Iterator[Imported]:
    """Interactions and ratings from Open WebUI's feedback export (Admin > Evaluations > Export).

    The rated message and its ancestors make the interaction; a thumb makes the rating. A comment is no
    corrected answer and is left out.

    Raises:
        UsageError: this is not such an export.
    """
    try:
        entries = json.loads(raw)
    except ValueError:
        raise UsageError("The file is not JSON.", code="unknown_format") from None
    if not (isinstance(entries, list) and all(isinstance(entry, dict) and "data" in entry for entry in entries)):
        raise UsageError("The file is not a feedback export of Open WebUI.", code="unknown_format")
    for number, entry in enumerate(entries, 1):
        try:
            yield Imported(number, _checked(_feedback(entry)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            yield Imported(number, "no conversation in this entry")


def from_llm_logs(path: Path) -> Iterator[Imported]:
    """Interactions from the `responses` table of the `llm` tool; earlier turns of a conversation are included.

    Raises:
        UsageError: the database has no such table, or cannot be read.
    """
    query = "SELECT prompt, system, response, model, conversation_id, datetime_utc FROM responses ORDER BY id"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            columns = {row[1] for row in database.execute("PRAGMA table_info(responses)")}
            if not columns >= LLM_COLUMNS:
                raise UsageError("This SQLite file is not a logs.db of the llm tool.", code="unknown_format")
            rows = database.execute(query).fetchall()
    except sqlite3.Error:
        raise UsageError("This SQLite file cannot be read.", code="unknown_format") from None
    yield from _conversations(rows)


def _conversations(rows: list[tuple[Any, ...]]) -> Iterator[Imported]:
    """One interaction a row, each with the turns before it."""
    turns: dict[str, list[Message]] = {}
    for number, (prompt, system, response, model, conversation, when) in enumerate(rows, 1):
        if not prompt or not response:
            yield Imported(number, "no prompt or no response")
            continue
        before = turns.setdefault(conversation or f"row {number}", [Message("system", system)] if system else [])
        messages = (*before, Message("user", prompt))
        try:
            record = Interaction(messages=messages, answer=response, model=f"llm:{model}", time=_seconds(when))
            yield Imported(number, _checked([record]))
        except (ValueError, TypeError):
            yield Imported(number, "no usable time")
        before += [Message("user", prompt), Message("assistant", response)]


def _feedback(entry: dict[str, Any]) -> list[Record]:
    """The records of one feedback entry; raises what malformed JSON raises."""
    chat = entry["snapshot"]["chat"]["chat"]
    history = chat["history"]["messages"]
    answer = history[entry["meta"]["message_id"]]
    messages = tuple(_ancestors(history, answer["parentId"]))
    if not messages or messages[-1].role != "user" or answer["role"] != "assistant":
        raise ValueError
    time = float(answer.get("timestamp") or entry["created_at"])
    model = str(entry["data"].get("model_id") or answer.get("model") or "unknown")
    interaction = Interaction(messages=messages, answer=str(answer["content"]), model=f"openwebui:{model}", time=time)
    vote = int(entry["data"].get("rating") or 0)
    if vote not in (-1, 1):
        return [interaction]
    return [
        interaction,
        Rating(interaction=interaction.id, value=1 if vote > 0 else -1, time=float(entry["updated_at"])),
    ]


def _ancestors(history: dict[str, Any], id: str | None) -> list[Message]:
    """The turns from the first to the message `id`."""
    found: list[Message] = []
    while id is not None and len(found) <= len(history):
        item = history[id]
        if item["role"] in ROLES:
            found.append(Message(item["role"], str(item["content"])))
        id = item.get("parentId")
    return found[::-1]


def _checked(records: list[Record]) -> list[Record] | str:
    """`records`, or why they cannot be stored."""
    try:
        for record in records:
            encode(record)
    except UsageError as error:
        return error.message
    return records


def _seconds(when: str) -> float:
    """Seconds since the epoch of an ISO time, taken as UTC when it names no zone."""
    moment = datetime.fromisoformat(when)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
