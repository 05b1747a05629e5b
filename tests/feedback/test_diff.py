"""Differences between answers: word by word, and as one number."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.diff import Change, edit_similarity, word_diff

TEXT = st.text(alphabet="ab é🙂.", max_size=12)


@given(TEXT, TEXT)
def test_edit_similarity_is_one_minus_the_relative_levenshtein_distance(a: str, b: str) -> None:
    """Against the recursive definition."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    expected = 1.0 if a == b else 1 - distance(len(a), len(b)) / max(len(a), len(b))
    assert edit_similarity(a, b) == pytest.approx(expected)
    assert edit_similarity(b, a) == edit_similarity(a, b)


def test_edit_similarity_at_the_edges() -> None:
    """Equal texts, empty ones, and texts with nothing in common."""
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("", "x") == 0.0
    assert edit_similarity("abc", "xyz") == 0.0
    assert edit_similarity("a" * 3000, "a" * 2999 + "b") == pytest.approx(1 - 1 / 3000)


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_word_diff_holds_both_texts_whole(before: str, after: str) -> None:
    """Nothing is lost on the way to the screen."""
    changes = word_diff(before, after)
    assert "".join(change.text for change in changes if change.kind != "added") == before
    assert "".join(change.text for change in changes if change.kind != "removed") == after


def test_a_word_diff_keeps_words_whole() -> None:
    """People compare words, not letters."""
    changes = word_diff('light.set(room="kitchen")', 'light.set(room="den")')
    assert Change("removed", "kitchen") in changes
    assert Change("added", "den") in changes
