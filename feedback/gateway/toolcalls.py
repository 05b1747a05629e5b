"""Tool calls in a model's text: the form that Hermes and Qwen templates teach, or one JSON object alone."""

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from feedback.llama import schema_grammar

TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)


def parse_calls(text: str, names: set[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return (text beside the calls, calls as the API has them); without a readable call, the text as it is."""
    found = [_call(body, names) for body in TAGGED.findall(text)]
    calls = [call for call in found if call]
    if calls:
        return TAGGED.sub("", text).strip(), calls
    call = _call(text.strip(), names)
    return ("", [call]) if call else (text, [])


def call_grammar(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the grammar of one call of one of these functions, given their parameters as JSON schemas."""
    shapes = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": dict(schema)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, schema in schemas.items()
    ]
    inner = schema_grammar(json.dumps(shapes[0] if len(shapes) == 1 else {"anyOf": shapes}))
    renamed = re.sub(r"^root ::=", "call ::=", inner, count=1, flags=re.MULTILINE)
    return f'root ::= "<tool_call>\\n" call "\\n</tool_call>"\n{renamed}'


def _call(text: str, names: set[str]) -> dict[str, Any] | None:
    """One call from its JSON; None when it is none of a known function."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": value["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
