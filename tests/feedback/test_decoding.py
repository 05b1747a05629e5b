"""From logits to text: probabilities, choices, and text that grows without showing half a character."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feedback.decoding import GrowingText, choose, log_probabilities


def test_log_probabilities_are_those_of_the_softmax() -> None:
    """Against the textbook formula in double precision, for large and small logits."""
    random = np.random.default_rng(0)
    logits = (random.standard_normal((7, 50)) * 30).astype(np.float32)
    tokens = random.integers(0, 50, 7)
    wide = logits.astype(np.float64)
    expected = wide[np.arange(7), tokens] - np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) - wide.max(1)
    assert np.allclose(log_probabilities(logits.copy(), tokens), expected, atol=1e-4)


def test_temperature_zero_takes_the_likeliest() -> None:
    """Whatever the seed."""
    logits = np.array([0.0, 3.0, 1.0], np.float32)
    assert {choose(logits, 0.0, np.random.default_rng(seed)) for seed in range(20)} == {1}


def test_sampled_tokens_follow_the_probabilities() -> None:
    """10,000 draws at temperature 2 match the softmax of logits / 2 within four standard errors."""
    logits, random = np.array([0.0, 2.0, 4.0], np.float32), np.random.default_rng(1)
    counts = np.bincount([choose(logits, 2.0, random) for _ in range(10_000)], minlength=3)
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert np.all(np.abs(counts / 10_000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 10_000))


@given(
    st.text(max_size=20),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.lists(st.text(min_size=1, max_size=3), max_size=3),
)
def test_pieces_shown_add_up_to_the_text_before_the_first_stop(text: str, sizes: list[int], stop: list[str]) -> None:
    """However the bytes are cut into tokens, and whatever the stop strings."""
    raw, grown, shown, place, turn = text.encode(), GrowingText(stop), "", 0, 0
    while place < len(raw) and not grown.stopped:
        size = sizes[turn % len(sizes)]
        shown += grown.add(raw[place : place + size])
        place, turn = place + size, turn + 1
    shown += grown.add(b"", final=True)
    assert shown == grown.text
    assert text.startswith(shown)
    assert not any(word in shown for word in stop)
    assert grown.stopped or shown == text


def test_a_character_split_over_tokens_appears_when_it_is_whole() -> None:
    """No replacement signs flicker while an emoji arrives byte by byte."""
    grown = GrowingText([])
    assert [grown.add(bytes([byte])) for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]


def test_what_may_become_a_stop_string_is_held_back() -> None:
    """`EN` could be the start of `END` and is shown once it is not."""
    grown = GrowingText(["END"])
    assert [grown.add(piece) for piece in (b"a", b"EN", b"x", b"yz")] == ["", "a", "E", "Nx"]
    assert grown.add(b"", final=True) == "yz"


def test_bytes_that_are_no_text_become_replacement_signs() -> None:
    """A model may write anything; the result is still text."""
    grown = GrowingText([])
    grown.add(b"a\xffb\xc3")
    grown.add(b"", final=True)
    assert grown.text == "a\ufffdb\ufffd"
