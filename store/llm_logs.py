"""Reads the logs.db of the `llm` tool, in both of its layouts.

Older versions keep a row of `responses` for each answer; in newer ones an answer is a turn at the end of a chain
of content-addressed messages. Text that a prompt borrowed from a fragment is put in its place. A database may hold
both.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from store.errors import UsageError
from store.imported import Imported, checked
from store.records import Interaction, Message, Role

RESPONSES = {"id", "model", "prompt", "system", "response", "conversation_id", "datetime_utc"}
TURNS = {"id", "model", "parent_message_hash", "tip_message_hash", "datetime_utc"}
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class _Stored:
    """One message as stored: its parent in the chain, its role and its text."""

    parent: str | None
    role: str
    text: str


def from_llm_logs(path: Path) -> Iterator[Imported]:
    """Interactions of a logs.db, with the turns before each prompt; numbered in the order they were logged.

    Raises:
        UsageError: the database has neither layout, or cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            older, newer = _has(database, "responses", RESPONSES), _has(database, "turns", TURNS)
            if not older and not newer:
                raise UsageError("This SQLite file is not a logs.db of the llm tool.", code="unknown_format")
            fragments = _fragments(database)
            found = [
                *(_responses(database, fragments) if older else ()),
                *(_turns(database, fragments) if newer else ()),
            ]
    except sqlite3.Error:
        raise UsageError("This SQLite file cannot be read.", code="unknown_format") from None
    for number, content in enumerate(found, 1):
        yield Imported(number, content if isinstance(content, str) else checked([content]))


def _has(database: sqlite3.Connection, table: str, columns: set[str]) -> bool:
    """Whether there is a table with these columns."""
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")} >= columns


def _fragments(database: sqlite3.Connection) -> dict[int, str]:
    """Texts that prompts may borrow, by their number."""
    if not _has(database, "fragments", {"id", "content"}):
        return {}
    return {int(id): str(content) for id, content in database.execute("SELECT id, content FROM fragments")}


def _responses(database: sqlite3.Connection, fragments: dict[int, str]) -> Iterator[Interaction | str]:
    """The older layout: one row an answer, earlier turns by conversation."""
    prompts, systems = (_borrowed(database, f"{kind}_fragments", fragments) for kind in ("prompt", "system"))
    turns: dict[str, list[Message]] = {}
    query = "SELECT id, prompt, system, response, model, conversation_id, datetime_utc FROM responses ORDER BY id"
    for id, prompt, system, answer, model, conversation, when in database.execute(query):
        request = "\n".join([*prompts.get(id, []), *([prompt] if prompt else [])])
        if not request or not answer:
            yield "no prompt or no response"
            continue
        rules = "\n".join([*systems.get(id, []), *([system] if system else [])])
        before = turns.setdefault(conversation or id, [Message("system", rules)] if rules else [])
        messages = (*before, Message("user", request))
        yield _interaction(messages, answer, model, when)
        before += [Message("user", request), Message("assistant", answer)]


def _borrowed(database: sqlite3.Connection, table: str, fragments: dict[int, str]) -> dict[str, list[str]]:
    """The fragments put before each response's prompt."""
    found: dict[str, list[str]] = {}
    if _has(database, table, {"response_id", "fragment_id", "order"}):
        for id, fragment in database.execute(f'SELECT response_id, fragment_id FROM {table} ORDER BY "order"'):
            found.setdefault(id, []).append(fragments.get(fragment, ""))
    return found


def _turns(database: sqlite3.Connection, fragments: dict[int, str]) -> Iterator[Interaction | str]:
    """The newer layout: a turn's answer is what stands between its parent and its tip in the chain of messages."""
    stored = _messages(database, fragments)
    query = "SELECT parent_message_hash, tip_message_hash, model, datetime_utc FROM turns ORDER BY id"
    for parent, tip, model, when in database.execute(query):
        answer = "".join(one.text for one in _chain(stored, tip, parent) if one.role == "assistant")
        messages = tuple(
            Message(ROLES[one.role], one.text) for one in _chain(stored, parent, None) if one.role in ROLES and one.text
        )
        if not answer or not messages or messages[-1].role != "user":
            yield "no prompt or no response"
        else:
            yield _interaction(messages, answer, model, when)


def _messages(database: sqlite3.Connection, fragments: dict[int, str]) -> dict[str, _Stored]:
    """All messages by hash, each with the text of its parts."""
    texts: dict[str, list[str]] = {}
    query = "SELECT message_hash, text, payload FROM parts WHERE type = 'text' ORDER BY message_hash, position"
    for hash, text, payload in database.execute(query):
        texts.setdefault(hash, []).append(text if text is not None else _resolved(payload, fragments))
    rows = database.execute("SELECT hash, parent_hash, role FROM messages")
    return {hash: _Stored(parent, role, "".join(texts.get(hash, []))) for hash, parent, role in rows}


def _resolved(payload: str | None, fragments: dict[int, str]) -> str:
    """The text of a part that borrows from fragments; empty when it is of no known shape."""
    try:
        pieces: list[dict[str, Any]] = json.loads(payload or "{}").get("text_ref", [])
        return "".join(str(one["literal"]) if "literal" in one else fragments[one["fragment"]] for one in pieces)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _chain(stored: dict[str, _Stored], tip: str | None, stop: str | None) -> list[_Stored]:
    """The messages from just after `stop` (None: the first) up to and with `tip`, oldest first."""
    found: list[_Stored] = []
    while tip is not None and tip != stop and tip in stored and len(found) <= len(stored):
        found.append(stored[tip])
        tip = stored[tip].parent
    return found[::-1]


def _interaction(messages: tuple[Message, ...], answer: str, model: str, when: str) -> Interaction | str:
    """The record, or why there is none."""
    try:
        moment = datetime.fromisoformat(when)
    except (ValueError, TypeError):
        return "no usable time"
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return Interaction(messages=messages, answer=answer, model=f"llm:{model}", time=seconds)
