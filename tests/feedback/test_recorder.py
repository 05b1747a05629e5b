"""Recording: what was asked, what was answered by which adapters, and what the owner says of it."""

import time
from pathlib import Path

import pytest

from feedback.engine import Engine
from feedback.recorder import MAX_TEXT, Recorder, correct, rate
from store.base import StoreBase
from store.errors import UsageError
from store.records import Consent, Correction, Interaction, Message, Rating, digest
from tests.feedback.micro import adapter

ASK = [Message("user", "hello")]


@pytest.fixture
def interaction(store: StoreBase) -> Interaction:
    """One recorded answer."""
    made = Interaction(messages=tuple(ASK), answer="light.on()", model="sha256:00", time=1.0)
    store.add(made)
    return made


def test_an_answer_is_recorded_with_model_and_adapters(store: StoreBase, engine: Engine, micro: Path) -> None:
    """The record names exactly what was served at that moment."""
    data = adapter(micro)
    plain = Recorder(store, engine).answer(ASK, max_tokens=4)
    engine.set_stack([(digest(data), data)])
    adapted = Recorder(store, engine).answer(ASK, max_tokens=4)
    assert (plain.model, plain.stack, adapted.stack) == (engine.model.digest, (), (digest(data),))
    assert store.all(Interaction) == [plain, adapted]
    assert plain.messages == tuple(ASK)
    assert plain.answer == _answer_without(engine)
    assert abs(plain.time - time.time()) < 60


def test_after_the_consent_to_log_is_withdrawn_nothing_is_stored(store: StoreBase, engine: Engine) -> None:
    """The answer is still given; granting again records again."""
    recorder = Recorder(store, engine)
    store.add(Consent(purpose="log", granted=False, time=1.0))
    assert recorder.answer(ASK, max_tokens=4).answer == _answer_without(engine)
    assert store.count(Interaction) == 0
    store.add(Consent(purpose="log", granted=True, time=2.0))
    recorder.answer(ASK, max_tokens=4)
    assert store.count(Interaction) == 1


def test_consent_to_another_purpose_says_nothing_about_logging(store: StoreBase, engine: Engine) -> None:
    """Each purpose is its own question."""
    store.add(Consent(purpose="share", granted=False, destination="fleet", time=1.0))
    Recorder(store, engine).answer(ASK, max_tokens=2)
    assert store.count(Interaction) == 1


@pytest.mark.parametrize("messages", [[], [Message("assistant", "hello")], [*ASK, Message("system", "x")]])
def test_a_conversation_without_a_request_is_refused(store: StoreBase, engine: Engine, messages: list[Message]) -> None:
    """The last turn must be the user's."""
    with pytest.raises(UsageError) as caught:
        Recorder(store, engine).answer(messages)
    assert caught.value.code == "no_request"


@pytest.mark.parametrize(
    ("text", "code"), [("a\0b", "bad_text"), ("\ud800", "bad_text"), ("x" * (MAX_TEXT + 1), "too_long")]
)
def test_a_request_that_cannot_be_stored_is_refused(store: StoreBase, engine: Engine, text: str, code: str) -> None:
    """Before anything is generated."""
    with pytest.raises(UsageError) as caught:
        Recorder(store, engine).answer([Message("user", text)])
    assert caught.value.code == code
    assert store.count(Interaction) == 0


def test_a_correction_is_recorded_with_what_it_corrects(store: StoreBase, interaction: Interaction) -> None:
    """By the full id, though a prefix is enough to name it."""
    made = correct(store, interaction.id.removeprefix("sha256:")[:12], "light.off()", reason="too bright", share=False)
    assert store.all(Correction) == [made]
    assert (made.interaction, made.corrected, made.reason, made.share) == (
        interaction.id,
        "light.off()",
        "too bright",
        False,
    )


def test_white_space_an_editor_adds_is_dropped(store: StoreBase, interaction: Interaction) -> None:
    """Line breaks around and blanks at the end go; indentation and inner breaks stay."""
    assert correct(store, interaction.id, "\n  a\n  b \n\n").corrected == "  a\n  b"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("light.on()", "unchanged"),
        ("light.on()\n", "unchanged"),
        ("secret\0", "bad_text"),
        ("secret\udfff", "bad_text"),
        ("secret" * MAX_TEXT, "too_long"),
    ],
)
def test_a_correction_that_teaches_nothing_is_refused(
    store: StoreBase, interaction: Interaction, text: str, code: str
) -> None:
    """With a code of its own and without quoting it."""
    with pytest.raises(UsageError) as caught:
        correct(store, interaction.id, text)
    assert caught.value.code == code
    assert "secret" not in caught.value.message
    assert store.count(Correction) == 0


def test_a_correction_may_be_as_long_as_the_limit(store: StoreBase, interaction: Interaction) -> None:
    """The limit counts bytes, so half as many two-byte letters fit."""
    assert len(correct(store, interaction.id, "é" * (MAX_TEXT // 2)).corrected) == MAX_TEXT // 2
    with pytest.raises(UsageError):
        correct(store, interaction.id, "é" * (MAX_TEXT // 2) + "e")


def test_nothing_can_be_said_of_an_unknown_interaction(store: StoreBase) -> None:
    """Both verbs say so."""
    for say in (lambda: correct(store, "0123456789ab", "x"), lambda: rate(store, "0123456789ab", 1)):
        with pytest.raises(UsageError) as caught:
            say()
        assert caught.value.code == "not_found"


def test_a_rating_is_plus_or_minus_one(store: StoreBase, interaction: Interaction) -> None:
    """Nothing in between."""
    assert [rate(store, interaction.id, 1).value, rate(store, interaction.id, -1).value] == [1, -1]
    with pytest.raises(UsageError):
        rate(store, interaction.id, 0)  # type: ignore[arg-type]
    assert store.count(Rating) == 2


def _answer_without(engine: Engine) -> str:
    """What the model answers without adapters."""
    engine.set_stack([])
    return engine.generate(ASK, max_tokens=4).text
