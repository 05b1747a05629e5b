"""The training loop of a personal adapter: corrections to learn, replay to keep.

Replayed skills of the base are also held to what the reference says (the base and whatever lies under the adapter); the
owner's own answers are not, since many of them are right against the base. What is minimised is `objectives`' business,
how a step is computed `lean`'s. No privacy here: what this makes never leaves the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from learner.base import Base
from learner.encode import Encoded, encode, encode_all
from learner.journal import Steps
from learner.lora import LoraSpec, LoraWeights, attached, extract
from learner.objectives import Objective, Preference, Reference, Supervised, Thumbs
from learner.recipe import Recipe
from store.errors import IntegrityError, NotEligible
from store.records import Example

Progress = Callable[[int, int, float], None]  # step, steps, loss
_WINDOW = 4  # batches sorted together by length


def train(
    base: Base,
    corrections: Sequence[Example],
    replay: Sequence[Example],
    recipe: Recipe,
    *,
    start: LoraWeights | None = None,
    under: LoraWeights | None = None,
    rated: Sequence[tuple[Example, bool]] = (),
    reference: Reference | None = None,
    progress: Progress | None = None,
    steps: Steps | None = None,
    recompute: bool = False,
) -> LoraWeights:
    """Train an adapter and return its weights; `base` comes back as it was.

    Args:
        corrections: what to learn.
        replay: what to keep; what the owner said by cross-entropy alone, the base's own pairs also by KL to the
            reference.
        start: adapter to continue from.
        under: shared adapter below.
        rated: answers given a thumb and whether it was up; used where `recipe.rating_weight` is not 0.
        reference: what earlier trainings on the same base and `under` found out about replayed items.
        progress: called after every step with (step, steps, loss).
        steps: knows how far this training had come before it was cut off, and keeps how far it comes.
        recompute: keep one matrix per layer and make the rest again: the same bits, for half as much more time.
    Raises:
        NotEligible: no correction fits into `recipe.max_tokens`.
        IntegrityError: the loss became NaN or infinite.
    """
    learn = encode_all(base, corrections, max_tokens=recipe.max_tokens, changed_weight=recipe.changed_weight)
    keep = encode_all(base, replay, max_tokens=recipe.max_tokens)
    if not learn:
        raise NotEligible("No correction is short enough to learn from.", code="nothing_to_learn")
    batches = schedule(learn, keep, recipe)
    spec = LoraSpec(recipe.rank, recipe.alpha, recipe.seed, recipe.freeze_a)
    with attached(base, spec, start=start, under=under) as held:
        held.hasten(base.fast_dtype, recompute=recompute)
        optimizer = torch.optim.Adam(held.parameters(), lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        done = steps.resume(held.parameters(), optimizer) if steps else 0
        objectives = _objectives(base, corrections, rated, recipe, reference or Reference(), done)
        for step, items in enumerate(batches[done:], done):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _rate(step, len(batches), recipe.warmup)
            loss = torch.stack([weight * objective(held, items) for weight, objective in objectives]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _report(progress, step + 1, len(batches), float(loss.detach()))
            if steps:
                steps.done(step + 1, sum(len(item.tokens) for item in items), held.parameters(), optimizer)
        return extract(held)


def schedule(learn: Sequence[Encoded], keep: Sequence[Encoded], recipe: Recipe) -> list[list[Encoded]]:
    """Return the batches of one run: shuffled passes over both parts, mixed in the recipe's share.

    Neighbouring batches are sorted by length against each other, which saves padding.
    """
    rng = np.random.default_rng(recipe.seed)
    steps = recipe.steps(len(learn))
    kept = round(steps * recipe.batch * recipe.replay_share) if keep else 0
    stream = _passes(learn, steps * recipe.batch - kept, rng) + _passes(keep, kept, rng)
    mixed = [stream[index] for index in rng.permutation(len(stream))]
    batches: list[list[Encoded]] = []
    for first in range(0, len(mixed), recipe.batch * _WINDOW):
        window = sorted(mixed[first : first + recipe.batch * _WINDOW], key=lambda item: len(item.tokens))
        cut = [window[at : at + recipe.batch] for at in range(0, len(window), recipe.batch)]
        batches.extend(cut[index] for index in rng.permutation(len(cut)))
    return batches


def _objectives(
    base: Base, corrections: Sequence[Example], rated: Sequence[tuple[Example, bool]], recipe: Recipe,
    reference: Reference, done: int,
) -> list[tuple[float, Objective]]:  # fmt: skip
    """What is minimised from step `done` on, with weights; what weighs nothing or has no material is left out."""
    found: list[tuple[float, Objective]] = [(1.0, Supervised(reference, recipe.kl_weight))]
    if recipe.preference_weight:
        refused = [replace(one, answer=one.rejected) for one in corrections if one.rejected]
        pairs = zip((one.id for one in corrections if one.rejected), (_encode(base, one, recipe) for one in refused),
                    strict=True)  # fmt: skip
        found.append((recipe.preference_weight, Preference({key: item for key, item in pairs if item}, recipe.beta)))
    if recipe.rating_weight and len(rated) > 1:
        items = [(item, good) for one, good in rated if (item := _encode(base, one, recipe))]
        found.append((recipe.rating_weight, Thumbs(items, recipe.beta, recipe.batch // 2, done)))
    return found


def _encode(base: Base, one: Example, recipe: Recipe) -> Encoded | None:
    """One example with all tokens weighing the same."""
    return encode(base, one, max_tokens=recipe.max_tokens)


def _passes(items: Sequence[Encoded], count: int, rng: np.random.Generator) -> list[Encoded]:
    """Take `count` items in shuffled passes, each seen equally often give or take one."""
    order: list[int] = []
    while len(order) < count:
        order.extend(int(index) for index in rng.permutation(len(items)))
    return [items[index] for index in order[:count]]


def _rate(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay towards zero."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def _report(progress: Progress | None, step: int, steps: int, loss: float) -> None:
    """Tell the caller where training stands; a loss that is not finite ends it."""
    if not np.isfinite(loss):
        raise IntegrityError("Training diverged: the loss is not a finite number.", code="diverged")
    if progress is not None:
        progress(step, steps, loss)
