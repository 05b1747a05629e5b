"""Chat templates: a conversation as the text a model was trained on.

The template comes from the model file, so it runs in jinja's immutable sandbox. Knows nothing of llama.cpp.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from store.errors import IntegrityError, UsageError
from store.records import Message

MARK = "\ue000{}\ue001"  # private-use characters: no template writes them


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """A turn of a conversation with tools: an assistant's calls, or what a tool returned."""

    role: str
    content: str
    extra: Mapping[str, object] = field(default_factory=dict)  # tool_calls, tool_call_id, name, as the API has them


Turn = Message | ToolTurn


class ChatTemplate:
    """One compiled chat template.

    Args:
        source: the jinja source stored in the model file; None when there is none.
        bos: text of the model's begin token, `eos` of its end token; the template may write them.

    Raises:
        UsageError: the model has no chat template (code ``no_template``).
        IntegrityError: the template does not compile.
    """

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        if not source:
            hint = "Use a chat model: its GGUF stores tokenizer.chat_template."
            raise UsageError("The model has no chat template.", hint=hint, code="no_template")
        sandbox = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        sandbox.filters["tojson"] = _to_json
        tokens = {"bos_token": bos, "eos_token": eos}
        sandbox.globals.update(tokens, raise_exception=_refuse, strftime_now=_now)
        self.takes_tools = bool(re.search(r"{[%{][^}]*\btools\b", source))
        try:
            self._template = sandbox.from_string(source)
        except TemplateError:
            raise IntegrityError("The model's chat template is damaged.", hint="Fetch the model again.") from None

    def render(
        self, messages: Sequence[Turn], tools: Sequence[object] = (), *, add_generation_prompt: bool = True
    ) -> str:
        """Return the conversation as text, ending where the model is to answer.

        Raises:
            UsageError: the template refuses this conversation, e.g. two turns of one role in a row
                (code ``template_refused``).
        """
        turns = [_turn(message) for message in messages]
        given = {"tools": list(tools)} if tools else {}
        try:
            return self._template.render(messages=turns, add_generation_prompt=add_generation_prompt, **given)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            hint = "Conversations end with the user's turn and alternate user and assistant."
            raise UsageError("The model's chat template refuses this conversation.", hint=hint,
                             code="template_refused") from None  # fmt: skip

    def segments(self, messages: Sequence[Turn], tools: Sequence[object] = ()) -> list[tuple[str, bool]]:
        """Return the rendered conversation in pieces (text, is a person's), so that a control token written
        out in a message can be told from one the template wrote.
        """
        marked = [replace(message, content=MARK.format(i)) for i, message in enumerate(messages)]
        pieces, rest = [], self.render(marked, tools)
        for i, message in enumerate(messages):
            before, mark, after = rest.partition(MARK.format(i))
            if mark:
                pieces += [(before, False), (message.content, True)]
                rest = after
        return [*pieces, (rest, False)]

    def after_answer(self) -> str:
        """Return what the template writes after an answer: it starts with the token that ends a turn."""
        mark = MARK.format("")
        turns = [Message("user", "."), Message("assistant", mark)]
        return self.render(turns, add_generation_prompt=False).partition(mark)[2]


def _turn(message: Turn) -> dict[str, object]:
    """One turn as templates read it."""
    extra = message.extra if isinstance(message, ToolTurn) else {}
    return {"role": message.role, "content": message.content, **extra}


def _to_json(value: object, indent: int | None = None) -> str:
    """JSON without jinja's HTML escapes, as templates expect it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise TemplateError(message)


def _now(form: str) -> str:
    """The local time as the template wants it."""
    return datetime.now().strftime(form)
