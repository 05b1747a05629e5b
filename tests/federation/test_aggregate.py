"""The rules that turn a round's updates into one change, against plain NumPy over all of them."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation import aggregate as aggregates
from federation.aggregate import RULES, Rule, aggregate, statement
from federation.update import Expected, PrivateUpdate
from store.errors import CorrigibleError, NotEligible, UsageError
from tests.federation.desk import COUNT, make_expected, make_spec


def updates(rows: np.ndarray, expected: Expected) -> list[PrivateUpdate]:
    """One update per row of levels."""
    return [PrivateUpdate(expected, row) for row in rows]


def combine(rows: Sequence[PrivateUpdate], rule: Rule, trim: float = 0.2) -> tuple[np.ndarray, int]:
    """The rule's result in levels, and how many updates it rests on."""
    expected = rows[0].expected
    into = aggregate(expected, rule, trim=trim)
    for update in rows:
        into.add(update)
    change = into.result()
    into.close()
    flat = np.concatenate([change[name].ravel() for name, _, _ in expected.layout])
    return flat / expected.spec.quantum, into.used


def levels(count: int, bits: int, seed: int = 0) -> np.ndarray:
    """Random levels over the whole range."""
    top = (1 << (bits - 1)) - 1
    return np.random.default_rng(seed).integers(-top, top + 1, (count, COUNT)).astype(f"<i{bits // 8}")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 41])
def test_each_rule_is_what_its_name_says(count: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean, trimmed mean and median agree with NumPy, also when read back in many blocks."""
    monkeypatch.setattr(aggregates, "BLOCK", 1000)
    rows = levels(count, bits)
    given_updates = updates(rows, make_expected(make_spec(bits=bits)))
    cut = int(0.2 * count)
    wanted = {
        "mean": rows.mean(axis=0),
        "median": np.median(rows, axis=0),
        "trimmed": np.sort(rows, axis=0)[cut : count - cut].mean(axis=0),
    }
    for rule, right in wanted.items():
        got, _ = combine(given_updates, rule)
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(7)), st.sampled_from(RULES))
def test_the_order_of_replies_changes_no_bit(order: list[int], rule: Rule) -> None:
    """Sums are integers and everything else is sorted."""
    rows = updates(levels(7, 8), make_expected())
    first, _ = combine(rows, rule)
    second, _ = combine([rows[place] for place in order], rule)
    assert np.array_equal(first, second)


def test_the_norm_filter_drops_what_stands_out_and_nothing_else() -> None:
    """Two of ten updates five times as long are left out; without them nobody is."""
    rows = np.random.default_rng(1).normal(0, 8, (10, COUNT)).round()
    rows[3:5] *= 5
    expected = make_expected()
    loud, used = combine(updates(rows.astype(np.int8), expected), "norm")
    assert used == 8
    np.testing.assert_allclose(loud, np.delete(rows, [3, 4], axis=0).astype(np.int8).mean(axis=0), atol=1e-4)
    _, used = combine(updates(np.delete(rows, [3, 4], axis=0).astype(np.int8), expected), "norm")
    assert used == 8


@pytest.mark.parametrize(("rule", "share"), [("trimmed", 0.2), ("median", 0.4)])
def test_a_minority_moves_a_robust_rule_no_further_than_the_honest_go(rule: Rule, share: float) -> None:
    """Whatever the minority sends, each coordinate stays within the honest devices' range; the mean does not."""
    honest = np.random.default_rng(2).integers(-10, 11, (20, COUNT)).astype(np.int8)
    bad = int(share * len(honest) / (1 - share))
    rows = np.vstack([honest, np.full((bad, COUNT), 127, np.int8)])
    expected = make_expected()
    got, _ = combine(updates(rows, expected), rule, trim=0.25)
    assert (got <= honest.max(axis=0) + 1e-3).all()
    assert (got >= honest.min(axis=0) - 1e-3).all()
    mean, _ = combine(updates(rows, expected), "mean")
    assert mean.mean() > got.mean() + 10


@pytest.mark.parametrize("rule", RULES)
def test_memory_does_not_grow_with_the_devices(rule: Rule) -> None:
    """Ten times the updates need less than one more update's memory to take in, for every rule."""
    expected = make_expected()
    wide = replace(expected, layout=(("w", 50_000, 4),))
    rows = [PrivateUpdate(wide, np.full(200_000, number, np.int8)) for number in range(5)]
    peaks = []
    for copies in (2, 20):
        into = aggregate(wide, rule)
        tracemalloc.start()
        for _ in range(copies):
            for row in rows:
                into.add(row)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        into.close()
    assert peaks[1] - peaks[0] < 200_000


@pytest.mark.parametrize("rule", RULES)
def test_no_update_gives_no_result(rule: Rule) -> None:
    """An empty round is an error of its own, not a zero."""
    into = aggregate(make_expected(), rule)
    with pytest.raises(NotEligible):
        into.result()
    into.close()


def test_privacy_per_device_allows_the_mean_alone() -> None:
    """Noise that is private only in the sum must not meet a rule that looks at single updates."""
    assert {statement(rule, "correction") for rule in RULES} == {statement("mean", "correction")}
    assert "sum" in statement("mean", "device")
    for rule, unit in (("median", "device"), ("norm", "device"), ("krum", "correction"), ("mean", "household")):
        with pytest.raises(UsageError, match="rule"):
            statement(rule, unit)
    with pytest.raises(UsageError, match="trimmed"):
        aggregate(make_expected(), "trimmed", trim=0.5)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The spool's folder is checked when the round begins, not in its middle."""
    with pytest.raises(CorrigibleError, match="disk"):
        aggregate(make_expected(), "median", scratch=tmp_path / "absent")
