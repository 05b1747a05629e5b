"""A run that is cut off goes on exactly where it was."""

import threading

import numpy as np
import pytest

from feedback.engine import Engine
from feedback.models import ModelFile
from learner.base import Base
from learner.cycle import learn
from learner.gate import GatePolicy
from learner.journal import Checkpoint, Journal, Steps
from learner.lora import LoraWeights
from learner.objectives import Reference
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.train import train
from learner.usage import pointer
from store.records import Adapter, Verdict
from tests.learner.conftest import ROOMS, Owner, example, habit, teach_habit

POLICY = LearnPolicy(recipe=Recipe(batch=8, min_steps=10, max_steps=10), gate=GatePolicy(groups=2))
Probe = list[tuple[str, str]]


class Cut(Exception):
    """Stands for a process that ends."""


def _train(base: Base, journal: Journal, cut_at: int) -> LoraWeights:
    """Train with replay, or be cut off after `cut_at` steps."""
    journal.open("one", ["a"], frozenset("a"))

    def progress(step: int, steps: int, loss: float) -> None:
        if step == cut_at:
            raise Cut

    corrections = [example(*habit(room)) for room in ROOMS]
    known = [(f"turn on the {room} light", f'light.set(room="{room}", state="on")') for room in ROOMS]
    replay = [example(*pair, rejected=None) for pair in known]

    def work(steps: Steps) -> LoraWeights:
        reference = Reference(journal.memory)
        return train(base, corrections, replay, POLICY.recipe, reference=reference, progress=progress, steps=steps)

    return journal.trained("final", work)


def test_a_training_resumes_to_the_same_bits(owner: Owner, base: Base) -> None:
    """Cut off twice, with the optimiser's state from disk, the weights equal those of one uninterrupted training."""
    home, _, store = owner
    whole = _train(base, Journal(), cut_at=0)
    for cut in (4, 8):
        with pytest.raises(Cut):
            _train(base, Journal(Checkpoint(store, home), every=0.0), cut)
        assert pointer(home).exists()
    last = Journal(Checkpoint(store, home), every=0.0)
    resumed = _train(base, last, cut_at=0)
    assert last.usage.attempts == 3
    assert last.usage.steps == 10
    for path in whole.b:
        np.testing.assert_array_equal(whole.b[path], resumed.b[path])
        np.testing.assert_array_equal(whole.a[path], resumed.a[path])


def test_a_crash_while_the_journal_is_written_leaves_the_old_one_or_the_new(owner: Owner) -> None:
    """Named but not written, or written with the old one still there: one whole journal is found, alone."""
    home, _, store = owner
    checkpoint = Checkpoint(store, home)
    checkpoint.save(b"first")
    old = store.put_artefact(b"first")
    pointer(home).write_text(f'["sha256:{"0" * 64}","{old}"]')
    assert checkpoint.load() == b"first"
    new = store.put_artefact(b"second")
    pointer(home).write_text(f'["{new}","{old}"]')
    assert checkpoint.load() == b"second"
    checkpoint.drop()
    assert checkpoint.load() is None
    assert not pointer(home).exists()


def test_crashes_in_one_writing_after_another_leave_the_last_whole_one(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process after process dies once its journal is named and before it is written."""
    home, _, store = owner
    Checkpoint(store, home).save(b"first")
    for word in (b"second", b"third", b"fourth"):
        checkpoint = Checkpoint(store, home)
        assert checkpoint.load() == b"first"
        with monkeypatch.context() as patched, pytest.raises(OSError, match="killed"):
            patched.setattr(store, "put_artefact", _killed)
            checkpoint.save(word)
    assert Checkpoint(store, home).load() == b"first"


def test_a_journal_that_was_only_named_is_written_by_the_next(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, and the next process comes to the same bytes: a kill in its second writing does not lose them."""
    home, _, store = owner
    for word in (b"first", b"second"):
        checkpoint = Checkpoint(store, home)
        assert checkpoint.load() is None
        if word == b"second":
            checkpoint.save(b"first")
        with monkeypatch.context() as patched, pytest.raises(OSError, match="killed"):
            patched.setattr(store, "put_artefact", _killed)
            checkpoint.save(word)
    assert Checkpoint(store, home).load() == b"first"


def _killed(_: bytes) -> str:
    raise OSError("killed")


def test_a_damaged_journal_is_no_obstacle(owner: Owner) -> None:
    """Bytes that are no journal: the run begins anew."""
    home, _, store = owner
    checkpoint = Checkpoint(store, home)
    checkpoint.save(b"not a journal")
    journal = Journal(checkpoint)
    assert journal.open("one", ["a"], frozenset("a")) is None
    assert journal.usage.attempts == 1


def test_a_whole_run_goes_on_with_its_own_corrections(
    owner: Owner, model: ModelFile, engine: Engine, base: Base, probe: Probe
) -> None:
    """Cut off in the second training, a correction came later: nothing is trained twice, the later one waits."""
    home, _, store = owner
    teach_habit(store, model)
    phases: list[str] = []

    def cut(phase: str, step: int, steps: int, loss: float) -> None:
        phases.append(phase)
        if len(phases) == 18:
            raise Cut

    def resumed(phase: str, step: int, steps: int, loss: float) -> None:
        phases.append(phase)

    with pytest.raises(Cut):
        learn(store, engine, base, probe, POLICY, progress=cut, journal=Journal(Checkpoint(store, home), every=0.0))
    teach_habit(store, model, rooms=("shed",))
    journal = Journal(Checkpoint(store, home), every=0.0)
    verdict = learn(store, engine, base, probe, POLICY, progress=resumed, journal=journal)
    assert verdict.decision == "adopt"
    assert len(phases) == 46  # one step after the last checkpoint was done twice
    record = store.last(Adapter, digest=verdict.adapter)
    assert record is not None
    assert len(record.examples) == len(ROOMS)
    assert not pointer(home).exists()
    assert store.count(Verdict) == 1


def test_a_run_whose_correction_was_removed_begins_anew(
    owner: Owner, model: ModelFile, engine: Engine, base: Base
) -> None:
    """What was removed must not be learned from a journal."""
    home, _, store = owner
    teach_habit(store, model)

    def cut(phase: str, step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Cut

    with pytest.raises(Cut):
        learn(store, engine, base, [], POLICY, progress=cut, journal=Journal(Checkpoint(store, home), every=0.0))
    kept = Journal(Checkpoint(store, home))
    ids = [one.id for one in store.examples()]
    assert kept.open("another policy", ids, frozenset(ids)) is None
    assert kept.open("another policy", ids[1:], frozenset(ids[1:])) is None


def test_nothing_is_written_while_somebody_wants_quiet(owner: Owner) -> None:
    """A checkpoint waits for the lock that a pause holds."""
    home, _, store = owner
    quiet = threading.Lock()
    journal = Journal(Checkpoint(store, home), quiet=quiet)
    journal.open("one", ["a"], frozenset("a"))
    with quiet:
        writer = threading.Thread(target=journal.save)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert not pointer(home).exists()
    writer.join(5)
    assert pointer(home).exists()
