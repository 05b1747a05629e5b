"""A replay on the embedded model, with real stores, real llama.cpp and real learning, on a very short log."""

from dataclasses import replace
from pathlib import Path

import pytest

from feedback.models import ModelFile, check_model, embedded_model, probe_pairs
from learner.gate import GatePolicy
from learner.policy import LearnPolicy
from learner.recipe import Recipe
from learner.replay import Replayer, ReplaySpec
from learner.replay_log import Event, Pair
from learner.replay_metrics import UserReplay, measured
from learner.replay_pool import Job, fresh_store, replay_users, shares
from store.paths import Home
from store.records import Correction, Interaction, Rating

QUICK = LearnPolicy(
    recipe=Recipe(min_steps=4, max_steps=4, batch=8),
    gate=GatePolicy(min_evidence=2, target_evidence=3),
    slice_size=8,
    replay_size=8,
)
WRONG = 'light.set(room="moon", state="on")'


@pytest.fixture(scope="module")
def model() -> ModelFile:
    """The embedded model."""
    return check_model(embedded_model())


@pytest.fixture(scope="module")
def pairs(model: ModelFile) -> tuple[Pair, ...]:
    """Requests that the base answers, with its own right answers where it has them."""
    return tuple(Pair(*pair) for pair in probe_pairs(model.path)[:12])


@pytest.fixture
def events(pairs: tuple[Pair, ...]) -> tuple[Event, ...]:
    """Six requests no base answers as the log does, a thumbs-down, an over-long one, and the first one again."""
    asked = [Event(i, "ann", float(i), f"zork {pair.prompt}", WRONG) for i, pair in enumerate(pairs[:6])]
    rest = (Event(7, "ann", 7.0, "hm", None), Event(8, "ann", 8.0, "word " * 4000, "x"))
    return (*asked, *rest, replace(asked[0], time=9.0))


def _replay(model: ModelFile, events: tuple[Event, ...], folder: Path, spec: ReplaySpec, *pairs: Pair) -> UserReplay:
    with Replayer(model, spec, pairs) as replayer, fresh_store(Home.at(folder), keep=False) as store:
        return replayer.user("ann", events, store, lambda _: None)


def test_what_the_log_says_is_recorded_as_the_owner_would_have_said_it(
    model: ModelFile, events: tuple[Event, ...], tmp_path: Path
) -> None:
    """Wrong answers become corrections, thumbs-down a rating, and what does not fit the context is counted."""
    with (
        Replayer(model, ReplaySpec(learn_every=100)) as replayer,
        fresh_store(Home.at(tmp_path), keep=False) as store,
    ):
        found = replayer.user("ann", events, store, lambda _: None)
        assert [rating.value for rating in store.all(Rating)] == [-1]
        assert (store.count(Interaction), store.count(Correction)) == (8, 7)
        assert [one.time for one in store.all(Interaction)] == [0, 1, 2, 3, 4, 5, 7, 9]
    assert (found.rejects, found.skipped) == (1, 1)
    assert [outcome.first for outcome in found.outcomes] == [True] * 6 + [False]


def test_without_learning_both_arms_answer_the_same_and_nothing_runs(
    model: ModelFile, events: tuple[Event, ...], pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    """The base's arm is the learning arm before anything is learned."""
    found = _replay(model, events, tmp_path, ReplaySpec(learning=False), *pairs)
    assert all(outcome.on == outcome.off for outcome in found.outcomes)
    assert found.runs == ()
    assert len(found.checks) == 1


def test_learning_runs_after_the_given_number_of_corrections_and_is_timed(
    model: ModelFile, events: tuple[Event, ...], pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    """Three corrections a run, and an adopted adapter is checked on the regression set."""
    found = _replay(model, events, tmp_path, ReplaySpec(learn_every=3, policy=QUICK), *pairs)
    assert next(run.at for run in found.runs) == 3
    assert all(run.seconds > 0 for run in found.runs)
    assert len(found.checks) == 1 + found.decisions("adopt")
    assert found.learning >= sum(run.seconds for run in found.runs)


def test_the_same_seed_gives_the_same_replay(model: ModelFile, events: tuple[Event, ...], tmp_path: Path) -> None:
    """Answers, verdicts and their evidence are reproducible; only seconds differ."""
    spec = ReplaySpec(learn_every=4, policy=QUICK, seed=3)
    one, two = (_replay(model, events, tmp_path / name, spec) for name in "ab")
    assert one.outcomes == two.outcomes
    assert [replace(run, seconds=0) for run in one.runs] == [replace(run, seconds=0) for run in two.runs]


def test_past_answers_are_shown_after_they_were_given(
    model: ModelFile, events: tuple[Event, ...], tmp_path: Path
) -> None:
    """Two more arms when asked for; without an adapter both are the base's."""
    found = _replay(model, events, tmp_path, ReplaySpec(learning=False, retrieve=2))
    assert measured([found]) == ("off", "on", "retrieval", "both")
    assert found.outcomes[0].retrieval == found.outcomes[0].off
    assert all(outcome.both == outcome.retrieval for outcome in found.outcomes)
    plain = _replay(model, events, tmp_path / "plain", ReplaySpec(learning=False))
    assert measured([plain]) == ("off", "on")


def test_users_spread_over_processes_give_what_one_process_gives(
    model: ModelFile, events: tuple[Event, ...], tmp_path: Path
) -> None:
    """Two processes, two users: same outcomes, in the users' order, and every event is told."""
    users = {"bob": events[:2], "ann": events[:3]}
    job = Job(model, ReplaySpec(learning=False), (), tmp_path / "spread")
    told: list[tuple[str, str]] = []
    spread = replay_users(job, users, lambda who, what: told.append((who, what)), processes=2)
    alone = replay_users(replace(job, folder=tmp_path / "alone"), users, lambda *_: None)
    assert [replay.user for replay in spread] == ["bob", "ann"]
    assert [replay.outcomes for replay in spread] == [replay.outcomes for replay in alone]
    assert sorted(told) == [("ann", "answer")] * 3 + [("bob", "answer")] * 2


def test_long_logs_are_dealt_out_first() -> None:
    """Two lots of equal length out of logs of 5, 3 and 2."""
    event = Event(1, "a", 0.0, "p", "a")
    lots = shares({"x": [event] * 3, "y": [event] * 5, "z": [event] * 2}, 2)
    assert [sorted(lot) for lot in lots] == [["y"], ["x", "z"]]
    assert shares({"x": [event]}, 4) == [{"x": [event]}]
