"""Chat templates: rendered as the model expects, harmless when hostile."""

import pytest

from feedback.template import ChatTemplate
from store.errors import IntegrityError, UsageError
from store.records import Message
from tests.feedback.micro import TEMPLATE

TALK = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye")]


def template(source: str | None = TEMPLATE) -> ChatTemplate:
    """A template with begin and end tokens."""
    return ChatTemplate(source, bos="<s>", eos="</s>")


def test_a_conversation_is_rendered_turn_by_turn() -> None:
    """Roles, contents and the start of the answer, as ChatML writes them."""
    expected = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in TALK)
    assert template().render(TALK) == expected + "<|im_start|>assistant\n"
    assert template().render(TALK, add_generation_prompt=False) == expected


def test_segments_join_to_the_rendered_conversation() -> None:
    """Each message is its own piece, marked as a person's; the rest is the template's."""
    pieces = template().segments(TALK)
    assert "".join(text for text, _ in pieces) == template().render(TALK)
    assert [text for text, typed in pieces if typed] == [message.content for message in TALK]


def test_what_ends_an_answer_is_found_in_the_template() -> None:
    """The end token is the one the template writes after an answer."""
    assert template().after_answer() == "<|im_end|>\n"


def test_begin_and_end_tokens_are_the_templates_to_write() -> None:
    """Templates of some families start with the begin token themselves."""
    assert template("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}").render(TALK) == "<s>Be brief.</s>"


def test_a_template_may_refuse_a_conversation() -> None:
    """The error carries its own code and none of the template's words, which may quote the messages."""
    with pytest.raises(UsageError) as caught:
        template("{{ raise_exception('no ' ~ messages[0].content) }}").render(TALK)
    assert caught.value.code == "template_refused"
    assert "brief" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__ }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[9].content.x }}",
    ],
)
def test_a_hostile_template_reaches_nothing(source: str) -> None:
    """It runs in jinja's immutable sandbox and ends in an error or in harmless text."""
    try:
        text = template(source).render(TALK)
    except UsageError:
        return
    assert text == ""


def test_a_model_without_a_template_is_refused() -> None:
    """A base model that was never taught to chat cannot be served as a chat model."""
    with pytest.raises(UsageError) as caught:
        template(None)
    assert caught.value.code == "no_template"


def test_a_template_that_does_not_compile_is_damage() -> None:
    """The model file is at fault, not the caller."""
    with pytest.raises(IntegrityError):
        template("{% for %}")
