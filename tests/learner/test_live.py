"""Champion and challenger on the owner's own corrections: valid however often one looks, and acted upon."""

import random

import numpy as np
import pytest

from learner.live import ALPHA, WATCHED, Arm, e_value, paired, review, running_trial, stack_for
from learner.material import Served
from store.base import StoreBase
from store.records import Activation, Adapter, Correction, Interaction, LiveVerdict, Message, Trial, Verdict, digest

BASE = digest(b"base")
OLD, NEW = digest(b"old"), digest(b"new")


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_harmless_adapters_are_seldom_rolled_back_however_often_one_looks(share: float) -> None:
    """Of 1,000 streams of coins at the rate of no harm, looked at after each of 300, at most 1 in 20 is refuted."""
    rng = np.random.default_rng(1)
    wrong = sum(e_value(rng.random(300) < share, share) >= 1 / ALPHA for _ in range(1000))
    assert wrong <= 50


def test_harm_is_found() -> None:
    """An adapter corrected three times as often as the one before is refuted within 80 corrections, 9 times in 10."""
    rng = np.random.default_rng(2)
    found = sum(e_value(rng.random(80) < 0.75, 0.5) >= 1 / ALPHA for _ in range(200))
    assert found >= 180


def test_a_better_adapter_gathers_no_evidence_against_it() -> None:
    """The bet holds less than it began with from the first coin on."""
    assert e_value([False] * 30, 0.5) == 1.0
    assert e_value([], 0.5) == 1.0


def test_the_value_is_the_mean_of_bets() -> None:
    """Three coins at a share of one half, against the sum written out."""
    rates = np.linspace(0.5, 1.0, 22)[1:-1]
    assert e_value([True, True, True], 0.5) == pytest.approx(float(np.mean((rates / 0.5) ** 3)))


def test_pairs_that_agree_say_nothing() -> None:
    """Only pairs that differ are coins, the newest before with the first after; a pair once made stays."""
    before = Arm((False, True, True, False))
    assert paired(before, Arm((True, True, False))) == [True, False]
    assert paired(before, Arm((True, True, False, True))) == [True, False, True]


class Life:
    """A store in which somebody asks and corrects."""

    def __init__(self, store: StoreBase) -> None:
        self.store, self.clock, self.draw = store, 0.0, random.Random(3)

    def ask(self, count: int, wrong: float, *stack: str) -> None:
        """Put `count` requests to a stack; a share of the answers is corrected."""
        for _ in range(count):
            self.clock += 1
            asked = Interaction(
                messages=(Message("user", f"request {self.clock}"),), answer="a", model=BASE, stack=stack,
                time=self.clock,
            )  # fmt: skip
            self.store.add(asked)
            if self.draw.random() < wrong:
                self.store.add(Correction(interaction=asked.id, corrected="b", time=self.clock))

    def adopt(self, name: str, parent: str | None, *, share: float = 0.0) -> None:
        """Adopt an adapter as a learning run does, at once or on trial."""
        self.clock += 1
        self.store.put_artefact(b"old" if name == OLD else b"new")
        self.store.add(Adapter(slot="personal", digest=name, base=BASE, parent=parent, time=self.clock - 0.5))
        self.store.add(
            Verdict(adapter=name, decision="adopt", reason="", gain=5, lower=1, upper=9, evidence=20, time=self.clock)
        )
        if share:
            self.store.add(Trial(adapter=name, champion=parent, share=share, time=self.clock))
        else:
            self.store.add(Activation(slot="personal", adapter=name, reason="", time=self.clock))


@pytest.fixture
def life(store: StoreBase) -> Life:
    """Somebody with an adapter that has served for a while."""
    life = Life(store)
    life.adopt(OLD, None)
    life.ask(250, 0.2, OLD)
    assert review(store, life.clock) is not None  # watched for long enough
    return life


def test_an_adapter_that_is_corrected_more_is_rolled_back(life: Life) -> None:
    """From 20 to 60 of 100 corrected: the one before serves again, with the evidence on record."""
    life.adopt(NEW, OLD)
    verdict = None
    while verdict is None:
        life.ask(5, 0.6, NEW)
        verdict = review(life.store, life.clock)
    assert verdict.decision == "rollback"
    assert verdict.evidence >= 1 / ALPHA
    assert verdict.requests < WATCHED
    assert verdict.corrections / verdict.requests > 0.4
    assert life.store.active("personal") == OLD
    assert life.store.last(LiveVerdict) == verdict
    assert review(life.store, life.clock) is None


def test_an_adapter_that_does_no_harm_is_kept_and_no_longer_watched(life: Life) -> None:
    """After 200 requests the watch ends; what is said later is not its business."""
    life.adopt(NEW, OLD)
    life.ask(WATCHED, 0.1, NEW)
    verdict = review(life.store, life.clock)
    assert verdict is not None
    assert (verdict.decision, verdict.requests, verdict.champion_requests) == ("keep", WATCHED, WATCHED)
    life.ask(50, 1.0, NEW)
    assert review(life.store, life.clock) is None
    assert life.store.active("personal") == NEW


def test_the_owner_s_own_choice_is_not_overruled(life: Life) -> None:
    """An adapter activated by hand is not watched."""
    life.store.activate("personal", None, "chosen by the owner", time=life.clock + 1)
    life.ask(100, 0.9)
    assert review(life.store, life.clock) is None


def test_a_trial_serves_its_share_and_ends_in_a_verdict(life: Life) -> None:
    """A quarter of the draws get the challenger; a bad one never serves alone, a good one does in the end."""
    life.adopt(NEW, OLD, share=0.25)
    assert life.store.active("personal") == OLD
    now = Served(None, (OLD, b"old"), frozenset())
    drawn = [stack_for(life.store, now, draw / 100).stack[0][0] for draw in range(100)]
    assert (drawn.count(NEW), drawn.count(OLD)) == (25, 75)
    verdict = None
    while verdict is None:
        life.ask(1, 0.9, NEW)
        life.ask(3, 0.2, OLD)
        verdict = review(life.store, life.clock)
    assert (verdict.decision, verdict.share) == ("rollback", 0.25)
    assert life.store.active("personal") == OLD
    assert running_trial(life.store) is None


def test_a_trial_without_harm_makes_the_challenger_champion(life: Life) -> None:
    """After 200 requests of its own."""
    life.adopt(NEW, OLD, share=0.5)
    for _ in range(WATCHED):
        life.ask(1, 0.1, NEW)
        life.ask(1, 0.2, OLD)
    verdict = review(life.store, life.clock)
    assert verdict is not None
    assert (verdict.decision, verdict.requests) == ("keep", WATCHED)
    assert life.store.active("personal") == NEW


def test_a_trial_ends_when_its_champion_no_longer_serves(life: Life) -> None:
    """A rollback by hand meanwhile is the owner's word."""
    life.adopt(NEW, OLD, share=0.5)
    life.store.activate("personal", None, "chosen by the owner", time=life.clock + 1)
    assert running_trial(life.store) is None
