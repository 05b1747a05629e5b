"""A conversation sends what it should and nothing more."""

from cli.conversation import Conversation
from store.records import Message


def test_without_turns_to_keep_each_request_stands_alone() -> None:
    """The embedded model answers one request at a time."""
    talk = Conversation(keep=0).answered("a", "b")
    assert talk.ask("c") == (Message("user", "c"),)


def test_the_newest_turns_go_along() -> None:
    """System message first, then the newest turns, then the request."""
    talk = Conversation(keep=1, system="s").answered("a", "b").answered("c", "d")
    assert [message.content for message in talk.ask("e")] == ["s", "c", "d", "e"]
    assert [message.role for message in talk.ask("e")] == ["system", "user", "assistant", "user"]


def test_a_correction_replaces_the_answer_in_the_conversation() -> None:
    """What follows builds on what is right."""
    talk = Conversation(keep=8).answered("a", "wrong").corrected("right")
    assert talk.ask("c")[1] == Message("assistant", "right")


def test_a_fresh_conversation_keeps_the_system_message_only() -> None:
    """/new forgets the turns."""
    talk = Conversation(keep=8, system="s").answered("a", "b").fresh()
    assert [message.content for message in talk.ask("c")] == ["s", "c"]
