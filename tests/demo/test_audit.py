"""The search for sentences finds what is there, in any usual encoding, and nothing in an encrypted store."""

import random
from pathlib import Path

import pytest

from cli.demo.audit import count_hits, read_ledger, scan
from learner.replay_pool import fresh_store
from store.paths import Home
from store.records import Consent, Correction, Egress, Interaction, Message, Spend

SECRET = "movie time in the kitchen"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("sentence", [SECRET, "buy milk", "öffne die Rollläden"])
def test_a_sentence_between_random_bytes_is_found(sentence: str, encoding: str) -> None:
    """Neither neighbours nor encoding hide it, beginning at an odd place or not."""
    noise = random.Random(0).randbytes(5001)
    assert count_hits(noise + sentence.encode(encoding) + noise, [sentence]) == 1


def test_random_bytes_hold_no_sentence() -> None:
    """A megabyte of noise gives no false alarm."""
    assert count_hits(random.Random(1).randbytes(1_000_000), [SECRET, "buy milk"]) == 0


def _tell(folder: Path) -> None:
    with fresh_store(Home.at(folder), keep=False) as store:
        asked = Interaction(messages=(Message("user", SECRET),), answer="light.dim()", model="m", time=1.0)
        store.add(asked)
        store.add(Correction(interaction=asked.id, corrected="light.dim(level=15)", time=2.0))
        assert scan(folder, {SECRET, "light.dim(level=15)"}).hits == 0


def test_a_store_in_use_and_closed_shows_none_of_what_it_holds(tmp_path: Path) -> None:
    """Database, write-ahead log, anchor and key file are searched; the control shows the search works."""
    _tell(tmp_path)
    found = scan(tmp_path, {SECRET, "light.dim(level=15)", "abc"})
    assert (found.hits, found.control, found.sentences) == (0, True, 2)
    assert found.files >= 3


def test_one_line_in_a_log_file_is_a_hit(tmp_path: Path) -> None:
    """A careless log line anywhere below the folder is found."""
    _tell(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "debug.log").write_text(f"asked: {SECRET}\n")
    assert scan(tmp_path, {SECRET}).hits == 1


def test_the_ledger_says_what_left_and_what_it_cost(tmp_path: Path) -> None:
    """A message without a cost on file is told apart from one that was paid for."""
    with fresh_store(Home.at(tmp_path), keep=False) as store:
        consent = Consent(purpose="share", granted=True, destination="f", time=1.0)
        spend = Spend(
            run="r", unit="correction", noise_multiplier=1.0, sampling_rate=0.5, steps=1, clipping_norm=1.0,
            delta=1e-6, epsilon=2.0, total=2.0, payload="p", time=2.0,
        )  # fmt: skip
        sent = Egress(purpose="share", destination="f", consent=consent.id, size=9, payload="p", epsilon=2.0, time=2.0)
        store.add_all([consent, spend, sent])
        ledger = read_ledger("Ada", store)
        assert (ledger.epsilon, ledger.unit, ledger.sizes, ledger.spent_first) == (2.0, "correction", (9,), True)
        store.add(Egress(purpose="share", destination="f", consent=consent.id, size=9, payload="q", time=3.0))
        assert not read_ledger("Ada", store).spent_first
        assert ledger.whole
