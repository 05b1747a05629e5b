"""The training loop: what is learned, what is kept, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from learner.base import Base
from learner.encode import collate, encode, encode_all
from learner.recipe import Recipe
from learner.train import schedule, train
from store.errors import IntegrityError, NotEligible
from tests.learner.conftest import ROOMS, example, habit

RECIPE = Recipe(batch=8, min_steps=12, max_steps=12, replay_share=0.5)
HABITS = [example(*habit(room)) for room in ROOMS]
KEPT = [example(f"turn on the {room} light", f'light.set(room="{room}", state="on")', rejected=None) for room in ROOMS]


def test_the_loss_falls(base: Base) -> None:
    """Twelve steps on one habit more than halve its loss."""
    losses: list[float] = []
    train(base, HABITS, [], RECIPE, progress=lambda step, steps, loss: losses.append(loss))
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2


def test_the_same_run_gives_the_same_adapter(base: Base) -> None:
    """A seed names a run."""
    first, second = (train(base, HABITS, KEPT, replace(RECIPE, min_steps=4, max_steps=4)) for _ in range(2))
    assert all(np.array_equal(first.b[path], second.b[path]) for path in first.b)


def test_replay_takes_its_share(base: Base) -> None:
    """Half of every run is spent on what must not be forgotten, each item as often as the others."""
    learn = encode_all(base, HABITS, max_tokens=512)
    keep = encode_all(base, KEPT, max_tokens=512)
    batches = schedule(learn, keep, replace(RECIPE, min_steps=24, max_steps=24))
    kept = [item.key for batch in batches for item in batch if item.protected]
    assert sum(len(batch) for batch in batches) == 24 * 8
    assert len(kept) == 24 * 4
    assert {kept.count(key) for key in set(kept)} == {8}


def test_every_correction_is_seen_without_replay(base: Base) -> None:
    """With nothing to keep, the whole run goes to the corrections."""
    batches = schedule(encode_all(base, HABITS, max_tokens=512), [], RECIPE)
    assert sum(len(batch) for batch in batches) == 12 * 8


def test_changed_tokens_weigh_more(base: Base) -> None:
    """Only what the correction changed is weighted up; weights of an example sum to one."""
    one = example("lamp", 'light.dim(room="hall", level=20)', rejected='light.dim(room="hall", level=90)')
    item = encode(base, one, max_tokens=512, changed_weight=3.0)
    assert item is not None
    assert sum(item.weights) == pytest.approx(1)
    assert max(item.weights) == pytest.approx(3 * min(item.weights))
    assert sum(weight > min(item.weights) for weight in item.weights) < len(item.weights) / 2


def test_answers_are_predicted_from_the_token_before(base: Base) -> None:
    """The batch points at the prompt's last token for the answer's first one; the end token is learned too."""
    items = encode_all(base, HABITS[:2], max_tokens=512)
    batch = collate(items)
    flat = batch.tokens.flatten()
    row = items[1]
    mine = batch.at[batch.owner == 1]
    assert flat[mine[0]] == row.tokens[row.answer_from - 1]
    assert batch.targets[batch.owner == 1].tolist() == list(row.tokens[row.answer_from :])
    assert batch.targets[-1] == base.end


def test_too_long_examples_are_left_out(base: Base) -> None:
    """One long correction among others is skipped; nothing but long ones is refused."""
    long = example("word " * 600, "x")
    assert len(encode_all(base, [long, *HABITS], max_tokens=512)) == len(HABITS)
    with pytest.raises(NotEligible):
        train(base, [long], KEPT, RECIPE)


def test_a_run_that_diverges_is_refused(base: Base) -> None:
    """An absurd learning rate ends in an error, never in an adapter."""
    with pytest.raises(IntegrityError):
        train(base, HABITS, KEPT, replace(RECIPE, lr=1e30, warmup=0.0))
