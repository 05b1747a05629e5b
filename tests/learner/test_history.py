"""What was learned over time, from records alone, in words and in pictures."""

import xml.etree.ElementTree as ElementTree

import pytest

from cli.report import learning
from learner.history import history, totals
from store.base import StoreBase
from store.records import Correction, Interaction, LiveVerdict, Message, Receipt, Verdict, digest

NAME = digest(b"adapter")


@pytest.fixture
def lived(store: StoreBase) -> StoreBase:
    """200 answers, half of the first hundred corrected and a tenth of the rest, two runs, one failure, one rollback."""
    for number in range(200):
        asked = Interaction(
            messages=(Message("user", f"request {number}"),), answer="a", model=digest(b"base"), time=float(number)
        )
        store.add(asked)
        if number % (2 if number < 100 else 10) == 0:
            store.add(Correction(interaction=asked.id, corrected="b", time=float(number)))
    verdict = Verdict(
        adapter=NAME, decision="adopt", reason="", gain=5, lower=1, upper=9, evidence=20, fixed=("x",), time=99.5
    )
    waiting = Verdict(adapter="", decision="wait", reason="", gain=0, lower=0, upper=0, evidence=3, time=50.0)
    store.add_all([waiting, verdict])
    store.add(
        Receipt(
            run=verdict.id, outcome="adopt", wall=60.0, cpu=50.0, peak=400 * 2**20, joules=900.0, energy="rapl",
            tokens=12_000, steps=40, corrections=25, fixed=1, time=99.5,
        )
    )  # fmt: skip
    store.add(Receipt(run="", outcome="failed", code="out_of_memory", wall=3.0, cpu=2.0, peak=1, time=120.0))
    store.add(
        LiveVerdict(
            adapter=NAME, champion=None, decision="rollback", evidence=25.0, share=1.0, requests=30, corrections=20,
            champion_requests=30, champion_corrections=5, time=150.0,
        )
    )  # fmt: skip
    return store


def test_the_curve_falls_and_knows_when_things_changed(lived: StoreBase) -> None:
    """Blocks of 50 answers; the adoption stands at 100 answers, the rollback at 150."""
    found = history(lived)
    assert [point.corrected for point in found.curve] == [50.0, 50.0, 10.0, 10.0]
    assert [(one.kind, one.answers) for one in found.changes] == [("adopt", 100), ("rollback", 150)]
    assert [run.receipt is not None for run in found.runs] == [False, True, True]


def test_the_costs_add_up(lived: StoreBase) -> None:
    """Failed runs cost, too; corrections count where they were adopted."""
    sums = totals(history(lived).runs)
    assert (sums["runs"], sums["adopted"], sums["corrections"], sums["joules"]) == (3, 1, 25, 900.0)
    assert sums["wall_hours"] == pytest.approx(63 / 3600)


def test_a_person_reads_it_in_one_line(lived: StoreBase) -> None:
    """The curve as blocks with its ends in numbers, and the cost of one correction."""
    found = history(lived)
    assert learning.sentence(found) == "corrected of 100 answers: ██▂▂  50 at first, 10 lately"
    assert "2.1 s of processor per correction learned" in learning.cost(found)
    assert "0.2 Wh" in learning.cost(found)


def test_live_use_is_told(lived: StoreBase) -> None:
    """Both sides in numbers, and what counts as proof."""
    (verdict,) = history(lived).live
    words = learning.live_words(verdict)
    assert "rolled back on live use: 20 of 30 answers corrected, 5 of 30 of the one before" in words
    assert "evidence of harm 25.0, 20 is proof" in words


def test_the_picture_is_a_whole_file(lived: StoreBase) -> None:
    """It parses, and holds the line, two marks and a description for those who cannot see it."""
    text = learning.standalone(learning.curve(history(lived)).chart)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert len(root.findall(".//*[@class='mark adopt']")) == 1
    assert len(root.findall(".//*[@class='mark reject']")) == 1
    assert "from 50.0 % to 10.0 %" in text


def test_nothing_learned_is_said(store: StoreBase) -> None:
    """An empty history has no curve and no table."""
    found = history(store)
    assert learning.words(found, 20) == "Nothing was learned yet."
    assert not found.curve
