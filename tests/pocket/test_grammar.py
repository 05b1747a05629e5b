"""The command grammar: determinism, coverage, and answers that keep to one form."""

import random
import re
from collections import Counter

import pytest

from tools.pocket import lexicon
from tools.pocket.data import key
from tools.pocket.grammar import ACTIONS, generate, phrasings
from tools.pocket.phrases import FRAMES, SLOTS
from tools.pocket.quantities import clock, day, duration, in_words

CALL = r'[a-z]+\.[a-z]+\((?:[a-z]+=(?:"[^"]*"|[\d.]+)(?:, |(?=\))))*\)'
ANSWER = re.compile(rf"{CALL}(?:; {CALL})*")


def test_one_seed_always_gives_the_same_pairs() -> None:
    """Training data can be made again from the seed alone, and another seed gives other data."""
    assert generate(300, 5) == generate(300, 5)
    assert generate(300, 5) != generate(300, 6)


def test_no_prompt_is_drawn_twice() -> None:
    """Pairs are distinct by prompt, so that what is held out cannot also be trained on."""
    pairs = generate(3000, 1)
    assert len({key(pair.prompt) for pair in pairs}) == len(pairs)


def test_every_answer_is_a_line_of_calls() -> None:
    """Answers are calls with named arguments joined by `; `, and a command never loses its slots."""
    for pair in generate(5000, 2):
        assert ANSWER.fullmatch(pair.answer), pair
        assert not set("{}|[]\n") & set(pair.prompt), pair


def test_every_action_has_dozens_of_wordings_and_is_drawn() -> None:
    """Each action has at least 50 wordings, politeness and slots not counted, and turns up often."""
    wordings: Counter[str] = Counter()
    for frame in FRAMES:
        wordings[frame.action] += sum(len(phrasings(phrase)) for phrase in frame.phrases)
    drawn = Counter(call for pair in generate(5000, 3) for call in re.findall(r"[a-z]+\.[a-z]+(?=\()", pair.answer))
    assert len(ACTIONS) >= 12
    assert min(wordings.values()) >= 50
    assert sum(wordings.values()) >= 2000
    assert set(drawn) == set(ACTIONS)
    assert min(drawn.values()) > 100


def test_open_slots_have_hundreds_of_values() -> None:
    """Names, things and texts vary enough that an answer must be copied from the request."""
    rng = random.Random(0)
    for name in ("item", "to", "artist", "song", "place", "title", "task", "text"):
        assert len({SLOTS[name](rng)[0] for _ in range(2000)}) > 300, name


def test_negations_and_compositions_are_common() -> None:
    """Both are a real share of the data."""
    pairs = generate(3000, 4)
    assert sum("don't" in pair.prompt.lower() or "do not" in pair.prompt.lower() for pair in pairs) > 300
    assert sum("; " in pair.answer for pair in pairs) > 500


@pytest.mark.parametrize(
    ("sampler", "surface", "value"),
    [
        (clock, "half past seven", '"07:30"'),
        (clock, "quarter to nine", '"08:45"'),
        (clock, "7 pm", '"19:00"'),
        (clock, "7", '"07:00"'),
        (clock, "noon", '"12:00"'),
        (duration, "an hour and a half", '"1h30m"'),
        (duration, "ten minutes", '"10m"'),
        (day, "on the 3rd of may", '"05-03"'),
    ],
)
def test_what_people_say_becomes_one_form(sampler: object, surface: str, value: str) -> None:
    """Times, days and durations are written one way, however they were said."""
    assert callable(sampler)
    rng = random.Random(0)
    found = dict(sampler(rng) for _ in range(40_000))
    assert found[surface] == value


def test_a_time_never_has_two_meanings() -> None:
    """One wording stands for one time."""
    rng, meanings = random.Random(0), dict[str, set[str]]()
    for _ in range(20_000):
        said, meant = clock(rng)
        meanings.setdefault(said, set()).add(meant)
    assert all(len(values) == 1 for values in meanings.values())


def test_numbers_are_spelled_in_words() -> None:
    """Number words up to one hundred."""
    assert [in_words(number) for number in (0, 13, 40, 99, 100)] == [
        "zero", "thirteen", "forty", "ninety nine", "one hundred"
    ]  # fmt: skip


def test_entities_hold_no_line_breaks() -> None:
    """Wrapping the word lists in the source does not leak into the words."""
    assert not [room for room in lexicon.ROOMS + lexicon.APPLIANCES + lexicon.ITEMS if "\n" in room or "  " in room]
