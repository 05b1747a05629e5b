"""What every store offers, and what follows from its few primitives.

`Store` (SQLCipher) and `MemoryStore` implement the primitives; everything here works on both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import Self, TypeVar

from store.errors import IntegrityError, UsageError
from store.records import (
    HASH_TAG,
    Activation,
    Agreed,
    Consent,
    Correction,
    Example,
    Interaction,
    Rating,
    Record,
    Review,
    Slot,
)

R = TypeVar("R", bound=Record)
T = TypeVar("T")
REMOVABLE = ("Interaction", "Correction", "Rating")
PREFIX_LETTERS = 3  # letters from which the last word of a search may be a beginning
MIN_PREFIX = 8  # hex digits of an id that a person may shorten it to


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `verify`, in words; `first` to `last` are sequence numbers where it has any."""

    code: str
    message: str
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `verify`."""

    records: int  # rows in the chain
    problems: tuple[Problem, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)  # records lost, by kind, where the anchor tells

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.problems


class StoreBase(ABC):
    """Records in, records out; never a row."""

    @abstractmethod
    def add_all(self, records: Iterable[Record]) -> list[str]:
        """Add records in one transaction and return their ids after the commit.

        A record that is already there is not added again. Raises UsageError for text or sizes that cannot be
        stored; then none is added.
        """

    @abstractmethod
    def get(self, kind: type[R], id: str) -> R:
        """The record of `kind` with this id or a prefix of at least 8 hex digits.

        Raises:
            UsageError: none (``not_found``) or several (``ambiguous``).
        """

    @abstractmethod
    def all(self, kind: type[R], *, since: float | None = None, limit: int | None = None) -> list[R]:
        """Records of `kind`, oldest first; only those with time >= `since`; the newest `limit` of them."""

    @abstractmethod
    def count(self, kind: type[Record]) -> int:
        """Number of live records of `kind`."""

    @abstractmethod
    def last(self, kind: type[R], **equal: object) -> R | None:
        """The newest record of `kind` whose fields equal the values given, or None."""

    @abstractmethod
    def remove_all(self, ids: Iterable[str], *, why: str = "owner") -> list[str]:
        """Remove interactions, corrections and ratings and what hangs on them; returns the ids removed.

        The text leaves pages, full-text index and WAL before this returns.

        Raises:
            UsageError: an id is unknown or names an entry of a ledger (``not_removable``).
        """

    @abstractmethod
    def search(self, text: str, limit: int = 20) -> list[Interaction]:
        """Interactions whose request, answer or correction has all words of `text`, newest first.

        The last word may be only the beginning of one, from three letters on.
        """

    @abstractmethod
    def put_artefact(self, data: bytes) -> str:
        """Store bytes and return their digest."""

    @abstractmethod
    def artefact(self, digest: str) -> bytes:
        """The bytes of an artefact. Raises IntegrityError when it is missing or changed."""

    @abstractmethod
    def drop_artefact(self, digest: str) -> None:
        """Remove an artefact; missing is fine."""

    @abstractmethod
    def verify(self) -> Report:
        """Check everything that can be checked; reads the whole store."""

    @abstractmethod
    def accept_damage(self) -> Report:
        """Record that the owner knows what `verify` reports and goes on; returns what was accepted."""

    @property
    @abstractmethod
    def damage(self) -> str:
        """Why learning and sharing stand still, in words; empty when they do not."""

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[object]:
        """An inter-process lock; entering raises Locked when another process holds it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files; the store cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, record: Record) -> str:
        """Add one record; returns its id after the commit."""
        return self.add_all([record])[0]

    def remove(self, id: str) -> list[str]:
        """Remove one record and what hangs on it; returns the ids removed."""
        return self.remove_all([id])

    def require_whole(self) -> None:
        """Raise IntegrityError (``store_damaged``) while damage is not accepted; learning and sharing ask this."""
        if self.damage:
            raise IntegrityError(
                self.damage,
                hint="See `corrigible doctor`; restore a backup or accept the loss with `corrigible doctor --accept`.",
                code="store_damaged",
            )

    def active(self, slot: Slot) -> str | None:
        """Digest of the adapter that `slot` serves, or None."""
        activation = self.last(Activation, slot=slot)
        return activation.adapter if activation else None

    def activate(self, slot: Slot, digest: str | None, reason: str, *, time: float | None = None) -> None:
        """Serve the artefact `digest` in `slot` from now on (None: nothing)."""
        self.add(Activation(slot=slot, adapter=digest, reason=reason, time=_now() if time is None else time))

    def consent(self, purpose: Agreed, destination: str = "") -> Consent | None:
        """The owner's newest word on `purpose` for `destination`, or None when it is not a yes."""
        consent = self.last(Consent, purpose=purpose, destination=destination)
        return consent if consent and consent.granted else None

    def reviews(self) -> dict[str, Review]:
        """The owner's newest word on each correction that was reviewed, by the correction's id."""
        return _newest(self.all(Review), lambda review: review.correction)

    def corrections(self) -> list[Correction]:
        """The corrections that may teach, oldest first, each with the owner's newest word on sharing it."""
        reviews = self.reviews()
        found = []
        for correction in self.all(Correction):
            review = reviews.get(correction.id) if reviews else None
            if review is None:
                found.append(correction)
            elif review.state == "accepted":
                found.append(replace(correction, share=review.share))
        return found

    def examples(self) -> list[Example]:
        """What there is to learn from, oldest first.

        The newest accepted correction of each interaction, and each answer whose newest rating approves it and
        that was not corrected.
        """
        corrections = _newest(self.corrections(), lambda correction: correction.interaction)
        approvals = {
            id: rating
            for id, rating in _newest(self.all(Rating), lambda rating: rating.interaction).items()
            if rating.value == 1 and id not in corrections
        }
        wanted = corrections.keys() | approvals.keys()
        found = {item.id: item for item in self.all(Interaction)} if wanted else {}
        examples = [corrected(found[id], correction) for id, correction in corrections.items() if id in found] + [
            _approved(found[id], rating) for id, rating in approvals.items() if id in found
        ]
        return sorted(examples, key=lambda example: example.time)

    def examples_of(self, interactions: Iterable[str]) -> list[Example]:
        """Every example that these interactions ever gave, those that a newer word has replaced included."""
        wanted = frozenset(interactions)
        found = {item.id: item for item in self.all(Interaction) if item.id in wanted}
        corrections = [one for one in self.all(Correction) if one.interaction in found]
        ratings = [one for one in self.all(Rating) if one.interaction in found and one.value == 1]
        return [corrected(found[one.interaction], one) for one in corrections] + [
            _approved(found[one.interaction], one) for one in ratings
        ]


def corrected(interaction: Interaction, correction: Correction) -> Example:
    """What a correction of this interaction teaches."""
    return Example(
        messages=interaction.messages,
        answer=correction.corrected,
        rejected=interaction.answer,
        share=correction.share,
        time=correction.time,
    )


def _approved(interaction: Interaction, rating: Rating) -> Example:
    return Example(messages=interaction.messages, answer=interaction.answer, time=rating.time)


def _newest(records: Iterable[R], key: Callable[[R], str]) -> dict[str, R]:
    """The last of `records` (oldest first) under each key."""
    return {key(record): record for record in records}


def _now() -> float:
    import time

    return time.time()


def id_prefix(id: str) -> str:
    """The tagged form of an id or of a prefix a person typed.

    Raises:
        UsageError: fewer than 8 hex digits, or not hex.
    """
    digits = id.strip().lower().removeprefix(HASH_TAG)
    if len(digits) < MIN_PREFIX or len(digits) > 64 or set(digits) - set("0123456789abcdef"):
        raise UsageError(
            f"This is not an id (at least {MIN_PREFIX} hex digits).",
            hint="`corrigible log list` shows ids.",
            code="bad_id",
        )
    return HASH_TAG + digits


def one_match(matches: Sequence[T], kind: str) -> T:
    """The only element. Raises UsageError ``not_found`` or ``ambiguous``."""
    if not matches:
        raise UsageError(f"There is no {kind} with this id.", hint="`corrigible log list` shows ids.", code="not_found")
    if len(matches) > 1:
        raise UsageError(f"Several {kind} records begin with these digits.", hint="Give more digits.", code="ambiguous")
    return matches[0]


def words_of(text: str) -> list[str]:
    """The words of a search, as the index cuts them.

    Raises:
        UsageError: there is no word in `text` (``no_words``) or it has NUL or broken Unicode (``bad_text``).
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("The search text is broken Unicode.", code="bad_text") from None
    words = "".join(letter if letter.isalnum() else " " for letter in text).split()
    if not words:
        raise UsageError("There is no word to search for.", hint="Give at least one letter or digit.", code="no_words")
    return words


def check_fields(kind: type[Record], equal: Mapping[str, object]) -> None:
    """Raise UsageError when `equal` names a field that `kind` does not have."""
    unknown = equal.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise UsageError(f"A {kind.__name__} has no such field.", code="bad_field")


def not_removable(kind: str) -> UsageError:
    """The refusal to remove an entry of a ledger."""
    return UsageError(
        f"A {kind} belongs to a ledger and cannot be removed.",
        hint="Only interactions, corrections and ratings can.",
        code="not_removable",
    )
