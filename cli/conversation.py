"""A conversation as values: what is sent to the model with the next request."""

from dataclasses import dataclass, replace

from store.records import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """Finished turns, of which the newest `keep` accompany the next request."""

    keep: int
    system: str = ""
    turns: tuple[tuple[str, str], ...] = ()  # (request, answer), oldest first

    def ask(self, request: str) -> tuple[Message, ...]:
        """Return the messages that put `request` to the model."""
        messages = [Message("system", self.system)] if self.system else []
        for asked, answer in self.turns[len(self.turns) - self.keep :] if self.keep else ():
            messages += [Message("user", asked), Message("assistant", answer)]
        return (*messages, Message("user", request))

    def answered(self, request: str, answer: str) -> "Conversation":
        """Return the conversation with one more finished turn."""
        return replace(self, turns=(*self.turns, (request, answer)))

    def corrected(self, answer: str) -> "Conversation":
        """Return the conversation with the newest answer replaced."""
        return replace(self, turns=(*self.turns[:-1], (self.turns[-1][0], answer)))

    def fresh(self) -> "Conversation":
        """Return a conversation with no turns."""
        return replace(self, turns=())
