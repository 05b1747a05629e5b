"""Tool calls with a model whose chat template has tools: shown to it, forced by a grammar, parsed, answered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.feedback.micro import Shape, write_model
from tests.gateway.running import Running, running

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROOMS = ["hall", "kitchen"]


def tool(name: str) -> dict[str, Any]:
    """A function that takes one of two rooms."""
    parameters = {"type": "object", "properties": {"room": {"enum": ROOMS}}, "required": ["room"],
                  "additionalProperties": False}  # fmt: skip
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway on random weights behind such a template."""
    folder: Path = tmp_path_factory.mktemp("tools")
    model = write_model(folder / "micro.gguf", Shape(context=2048), template=TEMPLATE)
    with running(folder, model=model) as found:
        yield found


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "dim"}}])
def test_a_call_that_must_be_made_is_made(served: Running, choice: object) -> None:
    """Of a tool that was given, with arguments that satisfy its schema; streamed in pieces it is the same call."""
    asked = {"tools": [tool("dim"), tool("open")], "tool_choice": choice, "max_tokens": 200}
    answer = served.ask("dim the hall", **asked).json()["choices"][0]
    (call,) = answer["message"]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    assert call["function"]["name"] in ({"dim", "open"} if choice == "required" else {"dim"})
    assert json.loads(call["function"]["arguments"])["room"] in ROOMS

    lines = served.ask("dim the hall", stream=True, **asked).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    parts = [part for chunk in chunks for part in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert parts[0]["function"]["name"] == call["function"]["name"]
    assert "".join(part["function"]["arguments"] for part in parts) == call["function"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_model_is_shown_tools_calls_and_results(served: Running) -> None:
    """Each makes the prompt longer by what the template writes; `none` hides the tools."""
    turns = [{"role": "user", "content": "dim the hall"}]
    call = {"id": "call_1", "type": "function", "function": {"name": "dim", "arguments": '{"room": "hall"}'}}
    after = [*turns, {"role": "assistant", "content": None, "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "call_1", "content": "dimmed"}]  # fmt: skip
    plain = _prompt(served, turns)
    shown = _prompt(served, turns, tools=[tool("dim")])
    assert shown - plain > len(json.dumps(tool("dim"))) - 20  # nearly a token a byte
    assert _prompt(served, turns, tools=[tool("dim")], tool_choice="none") == plain
    assert _prompt(served, after, tools=[tool("dim")]) > shown + len('{"name": "dim", "arguments": {"room": "hall"}}')


def test_answers_with_tools_are_not_logged(served: Running) -> None:
    """There is no text to correct."""
    answer = served.ask("dim the hall", tools=[tool("dim")], max_tokens=4)
    assert answer.headers["x-corrigible-logged"] == "no"


def _prompt(served: Running, turns: list[dict[str, Any]], **more: object) -> int:
    """Length of the prompt in tokens."""
    with served.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": turns, "max_tokens": 1, **more})
    return int(answer.json()["usage"]["prompt_tokens"])
