"""What every store promises, asked of the real one and of its twin in memory."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.base import StoreBase
from store.codec import MAX_BODY, decode, encode
from store.errors import IntegrityError, Locked, UsageError
from store.memory import MemoryStore
from store.records import (
    RECORD_TYPES,
    Activation,
    Adapter,
    Completion,
    Consent,
    Correction,
    Egress,
    Erasure,
    Example,
    Interaction,
    LiveVerdict,
    Message,
    Rating,
    Receipt,
    Review,
    Signal,
    Slice,
    Spend,
    Trial,
    Verdict,
)
from tests.store.samples import MODEL, correction, interaction, rating

ONE_OF_EACH = [
    interaction(1),
    correction("sha256:" + "a" * 64, 1),
    rating("sha256:" + "a" * 64, 1),
    Completion(interaction="sha256:" + "a" * 64, name="chatcmpl-1", model="m", confidence=-0.5, time=1.0),
    Review(interaction="sha256:" + "a" * 64, correction="sha256:" + "b" * 64, state="pending", share=False, time=1.0),
    Signal(interaction="sha256:" + "a" * 64, kind="regenerate", text="words", time=1.0),
    Adapter(digest=MODEL, slot="personal", base=MODEL, examples=("sha256:b",), time=1.0),
    Verdict(
        adapter=MODEL, decision="adopt", reason="better", gain=1.5, lower=0.5, upper=2.5, evidence=7,
        slices=(Slice(name="probe", count=3, before=90.0, after=91.5),), fixed=("x",), time=1.0,
    ),
    Receipt(run="r", outcome="adopt", wall=2.5, cpu=2.0, peak=10, joules=None, tokens=5, time=1.0),
    Activation(slot="shared", adapter=None, reason="rolled back", time=1.0),
    Trial(adapter=MODEL, champion=None, share=0.25, time=1.0),
    LiveVerdict(
        adapter=MODEL, champion=None, decision="keep", evidence=1.5, share=1.0, requests=200, corrections=3,
        champion_requests=200, champion_corrections=9, time=1.0,
    ),
    Erasure(body="{}", signature="00", key="00", time=1.0),
    Consent(purpose="share", granted=True, destination="fleet", terms="words", time=1.0),
    Spend(
        run="r1", unit="correction", noise_multiplier=1.1, sampling_rate=0.1, steps=10, clipping_norm=1.0,
        delta=1e-6, epsilon=0.5, total=0.5, time=1.0,
    ),
    Egress(purpose="share", destination="fleet", consent="c", size=10, payload="p", epsilon=0.5, time=1.0),
]  # fmt: skip


def test_every_kind_of_record_comes_back_equal(any_store: StoreBase) -> None:
    """Storage changes nothing: same values, same id, nested values included."""
    ids = any_store.add_all(ONE_OF_EACH)
    assert {type(record).__name__ for record in ONE_OF_EACH} == set(RECORD_TYPES)
    for id, record in zip(ids, ONE_OF_EACH, strict=True):
        assert id == record.id
        assert any_store.get(type(record), id) == record
        assert any_store.all(type(record)) == [record]


def test_adding_twice_stores_once(any_store: StoreBase) -> None:
    """Re-sending after a crash is harmless, alone and inside a batch."""
    first = any_store.add(interaction(1))
    assert any_store.add(interaction(1)) == first
    assert any_store.add_all([interaction(1), interaction(2), interaction(2)])[0] == first
    assert any_store.count(Interaction) == 2


def test_order_is_that_of_arrival_not_of_the_clock(any_store: StoreBase) -> None:
    """A clock that runs backwards changes neither order nor what counts as newest."""
    for number in (5, 3, 9, 1):
        any_store.add(interaction(number))
    assert [item.time for item in any_store.all(Interaction)] == [1005, 1003, 1009, 1001]
    assert [item.time for item in any_store.all(Interaction, limit=2)] == [1009, 1001]
    assert [item.time for item in any_store.all(Interaction, since=1004)] == [1005, 1009]
    newest = any_store.last(Interaction)
    assert newest is not None
    assert newest.time == 1001
    assert any_store.all(Interaction, limit=0) == []


def test_ids_may_be_shortened_but_not_guessed(any_store: StoreBase) -> None:
    """Eight digits are enough when they are unique; everything else is refused with a code."""
    id = any_store.add(interaction(1))
    digits = id.removeprefix("sha256:")
    assert any_store.get(Interaction, digits[:8]) == interaction(1)
    assert any_store.get(Interaction, id[:20].upper().replace("SHA256:", "sha256:")) == interaction(1)
    for wrong, code in [(digits[:7], "bad_id"), ("zzzzzzzzzz", "bad_id"), ("", "bad_id"), ("0" * 64, "not_found")]:
        with pytest.raises(UsageError) as caught:
            any_store.get(Interaction, wrong)
        assert caught.value.code == code
    with pytest.raises(UsageError):
        any_store.get(Correction, id)


def test_last_compares_fields_and_refuses_unknown_ones(any_store: StoreBase) -> None:
    """The newest record with equal fields, None included; a typing mistake is not a silent None."""
    any_store.activate("personal", MODEL, "better", time=1.0)
    any_store.activate("shared", None, "none yet", time=2.0)
    found = any_store.last(Activation, slot="personal")
    assert found is not None
    assert found.adapter == MODEL
    assert any_store.last(Activation, adapter=None, slot="shared") is not None
    assert any_store.last(Activation, slot="personal", adapter=None) is None
    with pytest.raises(UsageError):
        any_store.last(Activation, slott="personal")


def test_the_newest_activation_is_served(any_store: StoreBase) -> None:
    """Serving follows the newest word for each slot on its own."""
    assert any_store.active("personal") is None
    any_store.activate("personal", MODEL, "better", time=1.0)
    assert any_store.active("personal") == MODEL
    assert any_store.active("shared") is None
    any_store.activate("personal", None, "rolled back", time=2.0)
    assert any_store.active("personal") is None


def test_consent_is_off_until_given_and_off_again_when_withdrawn(any_store: StoreBase) -> None:
    """No word means no; the newest word counts, for one destination only."""
    assert any_store.consent("share", "fleet") is None
    any_store.add(Consent(purpose="share", granted=True, destination="fleet", time=1.0))
    assert any_store.consent("share", "fleet") is not None
    assert any_store.consent("share", "other") is None
    assert any_store.consent("learn") is None
    any_store.add(Consent(purpose="share", granted=False, destination="fleet", time=2.0))
    assert any_store.consent("share", "fleet") is None


def test_examples_are_live_corrections_and_approved_answers(any_store: StoreBase) -> None:
    """The newest correction of an interaction counts; approval counts only without a correction."""
    ids = any_store.add_all([interaction(number) for number in range(5)])
    any_store.add_all([correction(ids[0], 1, "first try"), correction(ids[0], 2, "final"), rating(ids[0], 1)])
    any_store.add_all([rating(ids[1], 1), rating(ids[2], -1), rating(ids[3], 1), rating(ids[3], -1, 1)])
    corrected, approved = any_store.examples()
    assert (corrected.answer, corrected.rejected) == ("final", "answer 0")
    assert (approved.answer, approved.rejected) == ("answer 1", None)
    assert corrected.messages == interaction(0).messages


def test_removal_takes_what_hangs_on_the_record(any_store: StoreBase) -> None:
    """An interaction goes with its corrections and ratings; a correction goes alone."""
    one, two = any_store.add_all([interaction(1), interaction(2)])
    hanging = any_store.add_all([correction(one, 1), rating(one, 1)])
    other = any_store.add(correction(two, 2))
    assert set(any_store.remove(one)) == {one, *hanging}
    assert any_store.all(Interaction) == [interaction(2)]
    assert any_store.count(Rating) == 0
    assert any_store.remove(other) == [other]
    assert any_store.examples() == []
    with pytest.raises(UsageError, match="no record"):
        any_store.remove(one)
    assert any_store.verify().ok


def test_a_removed_record_may_come_back_by_hand(any_store: StoreBase) -> None:
    """Removal forgets even the identity: adding the same words again is a new record, and it can go again."""
    id = any_store.add(interaction(1))
    for _ in range(3):
        assert any_store.remove(id) == [id]
        assert any_store.add(interaction(1)) == id
        assert any_store.count(Interaction) == 1
        assert any_store.verify().ok


def test_ledgers_cannot_be_removed(any_store: StoreBase) -> None:
    """Consents, spends and the like stay: removing one is refused by name."""
    id = any_store.add(Consent(purpose="log", granted=True, time=1.0))
    with pytest.raises(UsageError) as caught:
        any_store.remove(id)
    assert caught.value.code == "not_removable"


def test_search_finds_requests_answers_and_corrections(any_store: StoreBase) -> None:
    """All words must occur, the last may be a beginning; case and accents do not matter; newest first."""
    ids = any_store.add_all(
        [interaction(1, "Öffne die Küche"), interaction(2, "dim the kitchen"), interaction(3, "dim the hall")]
    )
    any_store.add(correction(ids[2], 1, "the kitchen corridor"))
    assert [item.time for item in any_store.search("dim the")] == [1003, 1002]
    assert any_store.search("kuche") == [interaction(1, "Öffne die Küche")]
    assert [item.time for item in any_store.search("KITCH")] == [1003, 1002]
    assert [item.time for item in any_store.search("kitchen", limit=1)] == [1003]
    assert any_store.search("kitchen bathroom") == []
    assert any_store.search("ki") == []
    any_store.remove(ids[2])
    assert [item.time for item in any_store.search("kitchen")] == [1002]


@pytest.mark.parametrize("text", ["", "  ", "!?", '"', "*", "\ud800", "\0"])
def test_a_search_without_words_is_refused(any_store: StoreBase, text: str) -> None:
    """Nothing a person types reaches the index as syntax."""
    with pytest.raises(UsageError):
        any_store.search(text)


@pytest.mark.parametrize("text", ['a" OR b', "NEAR(a b)", "text : a", "a AND NOT b", "it's; DROP TABLE records"])
def test_search_syntax_is_only_words(any_store: StoreBase, text: str) -> None:
    """Operators of the index are plain words here."""
    any_store.add(interaction(1))
    assert any_store.search(text) == []


@pytest.mark.parametrize(
    ("text", "code"), [("a\0b", "bad_text"), ("a\ud800b", "bad_text"), ("x" * 50_000_000, "too_large")]
)
def test_text_that_cannot_be_stored_is_refused_whole(any_store: StoreBase, text: str, code: str) -> None:
    """NUL, lone surrogates and 50 MB: a code, no text in the message, and the good neighbour is not stored either."""
    with pytest.raises(UsageError) as caught:
        any_store.add_all([interaction(1), interaction(2, text)])
    assert caught.value.code == code
    assert len(str(caught.value)) < 200
    assert any_store.count(Interaction) == 0


def test_a_record_just_below_the_limit_is_kept(any_store: StoreBase) -> None:
    """The limit is a limit and not a guess; a backslash before u0000 is ordinary text."""
    big = interaction(1, "y" * (MAX_BODY - 1000) + "\\u0000")
    assert any_store.get(Interaction, any_store.add(big)) == big


def test_numbers_must_be_finite_and_derived_records_are_not_stored(any_store: StoreBase) -> None:
    """NaN would poison every later sum; examples exist once, as what they derive from."""
    with pytest.raises(UsageError):
        any_store.add(Rating(interaction="i", value=1, time=float("nan")))
    with pytest.raises(UsageError):
        any_store.add(Example(messages=(Message("user", "q"),), answer="a"))


def test_artefacts_are_named_by_their_bytes(any_store: StoreBase) -> None:
    """Put, get, drop; a missing one is an integrity error, not an empty answer."""
    for data in (b"", b"x", b"adapter" * 100_000):
        name = any_store.put_artefact(data)
        assert any_store.put_artefact(data) == name
        assert any_store.artefact(name) == data
    any_store.drop_artefact(name)
    any_store.drop_artefact(name)
    with pytest.raises(IntegrityError) as caught:
        any_store.artefact(name)
    assert caught.value.code == "artefact_missing"


def test_a_lock_has_one_holder(any_store: StoreBase) -> None:
    """The second asker is refused at once; the lock is free again afterwards; names are independent."""
    with any_store.lock("learn"):
        with pytest.raises(Locked) as caught, any_store.lock("learn"):
            pass
        assert caught.value.code == "busy"
        with any_store.lock("daemon"):
            pass
    with any_store.lock("learn"):
        pass


def test_an_undamaged_store_lets_learning_go_on(any_store: StoreBase) -> None:
    """No damage, no refusal; verify counts what is there."""
    any_store.add_all(ONE_OF_EACH)
    any_store.require_whole()
    report = any_store.verify()
    assert report.ok
    assert report.records == len(ONE_OF_EACH)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words, words, st.lists(words, max_size=3), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_survives_coding(request: str, answer: str, stack: list[str], time: float) -> None:
    """Whatever Unicode holds, decode undoes encode and the id stays."""
    record = Interaction(
        messages=(Message("user", request),), answer=answer, model=MODEL, stack=tuple(stack), time=time
    )
    entry = encode(record)
    assert decode(entry.kind, entry.body) == record
    assert entry.id == record.id


def test_a_body_of_another_shape_is_an_integrity_error() -> None:
    """Garbage where a record should be never becomes a half-made record."""
    for body in ("", "[]", "{}", '{"surprise":1}', "nonsense"):
        with pytest.raises(IntegrityError):
            decode("Rating", body)


def test_the_twin_needs_no_folder(tmp_path: Path) -> None:
    """The in-memory store writes nothing anywhere."""
    with MemoryStore() as twin:
        twin.add(interaction(1))
    assert list(tmp_path.iterdir()) == []
