"""Interactions, corrections and ratings on their way into the store.

Decides what is recorded and refuses what could not be learned from. Generates nothing itself and learns nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from store.base import StoreBase
from store.errors import UsageError
from store.records import Consent, Correction, Interaction, Message, Rating

if TYPE_CHECKING:  # correcting and rating load no model
    from feedback.engine import Engine

MAX_TEXT = 64 * 1024  # bytes of UTF-8 in one correction, reason or request


class Recorder:
    """Answers with `engine` and records in `store` what was asked, what was answered and by which adapters."""

    def __init__(self, store: StoreBase, engine: "Engine") -> None:
        self._store, self._engine = store, engine

    def answer(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_token: Callable[[str], bool] | None = None,
    ) -> Interaction:
        """Answer a conversation and record it, unless the owner has withdrawn the consent to log.

        The arguments are those of `Engine.generate`. An answer the caller breaks off by `on_token` is recorded as
        far as it came.

        Returns:
            The interaction; when logging is withdrawn it is in no store, so it cannot be corrected later.

        Raises:
            UsageError: no user turn at the end (code ``no_request``), or text that cannot be stored
                (codes ``too_long``, ``bad_text``); also what `Engine.generate` raises.
        """
        if not messages or messages[-1].role != "user":
            hint = "Send a conversation whose last turn is the user's."
            raise UsageError("There is no request to answer.", hint=hint, code="no_request")
        for message in messages:
            storable(message.content, "request")
        answer = self._engine.generate(
            messages, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, on_token=on_token
        )
        interaction = Interaction(
            messages=tuple(messages),
            answer=answer.text,
            model=self._engine.model.digest,
            stack=answer.stack,
            time=time.time(),
        )
        if logging_allowed(self._store):
            self._store.add(interaction)
        return interaction


def logging_allowed(store: StoreBase) -> bool:
    """Return whether answers may be recorded: yes until the owner withdraws the consent to log."""
    newest = store.last(Consent, purpose="log")
    return newest is None or newest.granted


def correct(store: StoreBase, interaction_id: str, corrected: str, reason: str = "", share: bool = True) -> Correction:
    """Record what the answer of an interaction should have been.

    Line breaks around the text and white space at its end are an editor's, not the owner's, and are dropped.
    Of several corrections of one interaction the newest counts.

    Args:
        interaction_id: id of the interaction or a prefix of at least 8 hex digits.
        share: False keeps it to the personal adapter.

    Raises:
        UsageError: unknown interaction, text that is empty (``empty``), over 64 KiB (``too_long``), holds NUL or
            lone surrogates (``bad_text``) or is what was answered (``unchanged``).
    """
    text = corrected.strip("\r\n").rstrip()
    if not text.strip():
        hint = "Give the answer that should have been; to reject one without saying so, rate it -1."
        raise UsageError("The correction is empty.", hint=hint, code="empty")
    storable(text, "correction")
    storable(reason, "reason")
    interaction = store.get(Interaction, interaction_id)
    if text == interaction.answer.strip("\r\n").rstrip():
        hint = "To approve an answer, rate it +1."
        raise UsageError("The correction is what was answered.", hint=hint, code="unchanged")
    correction = Correction(interaction=interaction.id, corrected=text, reason=reason, share=share, time=time.time())
    store.add(correction)
    return correction


def rate(store: StoreBase, interaction_id: str, value: Literal[-1, 1]) -> Rating:
    """Record that the owner approves (+1) or rejects (-1) an answer.

    Raises:
        UsageError: unknown interaction, or another value (code ``bad_rating``).
    """
    if value not in (-1, 1):
        raise UsageError("A rating is -1 or 1.", code="bad_rating")
    interaction = store.get(Interaction, interaction_id)
    rating = Rating(interaction=interaction.id, value=value, time=time.time())
    store.add(rating)
    return rating


def storable(text: str, what: str) -> None:
    """Refuse (UsageError ``too_long``, ``bad_text``) text that is too long or that no store and no model could hold."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\0" in text:
        raise UsageError(f"The {what} holds NUL or broken characters.", hint="Remove them.", code="bad_text")
    if size > MAX_TEXT:
        message = f"The {what} is {size} bytes long; the limit is {MAX_TEXT}."
        raise UsageError(message, hint="Shorten it.", code="too_long")
