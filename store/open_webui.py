"""Reads Open WebUI's feedback export: what was asked, what was answered, and the thumb.

A pure reader: it yields records or the reason why an entry is left out, never the entry's text.
"""

import json
from collections.abc import Iterator
from typing import Any, get_args

from store.errors import UsageError
from store.imported import Imported, checked
from store.records import Interaction, Message, Rating, Record, Role

ROLES = get_args(Role)


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
            yield Imported(number, checked(_feedback(entry)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            yield Imported(number, "no conversation in this entry")


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
