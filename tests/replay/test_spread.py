"""Work spread over processes: results and progress come back, errors too, and no child outlives the call."""

import multiprocessing
import os
import time

import pytest

from learner.spread import Tell, spread
from store.errors import CorrigibleError, UsageError


def _square(lot: int, tell: Tell) -> list[int]:
    tell("square", str(lot))
    return [lot * lot]


def _fail_on_two(lot: int, tell: Tell) -> list[int]:
    if lot == 2:
        raise UsageError("two is refused", code="two")
    time.sleep(60)
    return _square(lot, tell)


def _vanish(lot: int, tell: Tell) -> list[int]:
    del lot, tell
    os._exit(3)


def test_results_and_progress_come_back_from_every_process() -> None:
    """Three lots, three results, three words."""
    told: list[tuple[str, str]] = []
    assert sorted(spread(_square, [1, 2, 3], lambda who, what: told.append((who, what)))) == [1, 4, 9]
    assert sorted(told) == [("square", "1"), ("square", "2"), ("square", "3")]


def test_an_error_in_one_process_ends_all_of_them() -> None:
    """The error arrives with its code, at once, and nobody is left sleeping."""
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        spread(_fail_on_two, [1, 2], lambda *_: None)
    assert caught.value.code == "two"
    assert time.monotonic() - began < 50
    assert multiprocessing.active_children() == []


def test_a_process_that_vanishes_is_an_error_and_not_a_wait() -> None:
    """Killed for memory, say: the caller is told."""
    with pytest.raises(CorrigibleError) as caught:
        spread(_vanish, [1, 2], lambda *_: None)
    assert caught.value.code == "process_died"


def test_a_single_lot_is_worked_on_here() -> None:
    """No process is started for it."""
    assert spread(_square, [5], lambda *_: None) == [25]
