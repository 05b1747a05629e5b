"""The embedded base model as it ships: size, identity with its card, and its score on held-out requests."""

import hashlib
from pathlib import Path

import pytest

from tools.pocket.data import key, read_pairs
from tools.pocket.grammar import generate
from tools.pocket.score import score

FOLDER = Path(__file__).parents[2] / "feedback" / "pocket"
MODEL = FOLDER / "pocket.gguf"


def test_the_shipped_file_is_small_and_named_in_its_card() -> None:
    """The card describes exactly this file: its SHA-256 stands in it."""
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert MODEL.stat().st_size <= 8_000_000
    assert digest in (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_shipped_probe_is_two_thousand_distinct_pairs() -> None:
    """Devices replay and judge old skills with it, so that it must be large enough and free of repeats."""
    pairs = read_pairs(FOLDER / "probe.jsonl")
    assert 2000 <= len(pairs) <= 2200
    assert len({key(pair.prompt) for pair in pairs}) == len(pairs)


def test_the_shipped_model_is_right_on_held_out_requests() -> None:
    """At least 90 % exact on 60 of the probe's requests, greedy, through llama.cpp."""
    assert score(MODEL, read_pairs(FOLDER / "probe.jsonl")[:60], quiet=True).percent >= 90


@pytest.mark.parametrize("seed", [2])
def test_the_probe_comes_from_the_grammar(seed: int) -> None:
    """The shipped probe is what the grammar gives for the card's seed."""
    shipped = read_pairs(FOLDER / "probe.jsonl")
    assert [pair.prompt for pair in shipped] == [pair.prompt for pair in generate(len(shipped), seed)]
