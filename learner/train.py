"""The training loop of a personal adapter: corrections to learn, replay to keep.

Loss on answers only, computed only where answers are predicted. Replayed answers are also held to what the reference
(the base and whatever lies under the adapter) says, so that old skills stay (KL, arXiv 1606.09282's idea of learning
without forgetting). No privacy here: what this makes never leaves the device.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from learner.base import Base
from learner.encode import Encoded, encode_all
from learner.journal import Steps
from learner.lora import Attached, LoraSpec, LoraWeights, attached, extract
from learner.recipe import Recipe
from store.errors import IntegrityError, NotEligible
from store.records import Example

Progress = Callable[[int, int, float], None]  # step, steps, loss
_WINDOW = 4  # batches sorted together by length
_TOP = 32  # reference probabilities kept per position; the rest is renormalised away


def train(
    base: Base,
    corrections: Sequence[Example],
    replay: Sequence[Example],
    recipe: Recipe,
    *,
    start: LoraWeights | None = None,
    under: LoraWeights | None = None,
    reference: "Reference | None" = None,
    progress: Progress | None = None,
    steps: Steps | None = None,
) -> LoraWeights:
    """Train an adapter and return its weights; `base` comes back as it was.

    Args:
        corrections: what to learn.
        replay: what to keep; items with a refused answer (older corrections) by cross-entropy alone, the others
            also by KL to the reference.
        start: adapter to continue from.
        under: shared adapter below.
        reference: what earlier trainings on the same base and `under` found out about replayed items.
        progress: called after every step with (step, steps, loss).
        steps: knows how far this training had come before it was cut off, and keeps how far it comes.
    Raises:
        NotEligible: no correction fits into `recipe.max_tokens`.
        IntegrityError: the loss became NaN or infinite.
    """
    learn = encode_all(base, corrections, max_tokens=recipe.max_tokens, changed_weight=recipe.changed_weight)
    keep = encode_all(base, replay, max_tokens=recipe.max_tokens)
    if not learn:
        raise NotEligible("No correction is short enough to learn from.", code="nothing_to_learn")
    batches = schedule(learn, keep, recipe)
    with attached(base, LoraSpec(recipe.rank, recipe.alpha, recipe.seed), start=start, under=under) as held:
        held.hasten(base.fast_dtype)
        reference = reference or Reference()
        optimizer = torch.optim.Adam(held.parameters(), lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        done = steps.resume(held.parameters(), optimizer) if steps else 0
        for step, items in enumerate(batches[done:], done):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _rate(step, len(batches), recipe.warmup)
            loss = _loss(held, items, reference, recipe.kl_weight)
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


class Reference:
    """Most likely next tokens under the reference model, remembered per replayed item."""

    def __init__(self, known: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = None) -> None:
        """Start with what is `known` already, by item; it is added to."""
        self._known = {} if known is None else known

    def of(self, held: Attached, items: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and probabilities [answer tokens, top] over all `items` in order."""
        missing = [item for item in items if item.key not in self._known]
        if missing:
            self._learn(held, missing)
        known = [self._known[item.key] for item in items]
        return torch.cat([tokens for tokens, _ in known]), torch.cat([probs for _, probs in known])

    def _learn(self, held: Attached, items: Sequence[Encoded]) -> None:
        """One forward pass without the own adapter."""
        with torch.no_grad(), held.reference():
            log_probs = held.answers(items).every_log_prob()
        values, tokens = log_probs.topk(min(_TOP, log_probs.shape[-1]), dim=-1)
        sizes = [len(item.weights) for item in items]
        parts = zip(items, torch.split(tokens, sizes), torch.split(torch.softmax(values, -1), sizes), strict=True)
        self._known.update((item.key, (token, prob)) for item, token, prob in parts)


def _loss(held: Attached, items: Sequence[Encoded], reference: Reference, kl_weight: float) -> torch.Tensor:
    """Mean over examples of the weighted cross-entropy, replay mixed with the reference's distribution."""
    items = sorted(items, key=lambda item: item.protected)  # the protected ones last, so that they are one slice
    answers = held.answers(items)
    protected = [item for item in items if item.protected]
    if not protected or kl_weight == 0:
        return -(answers.log_probs()[:, 0] * answers.weights).sum() / len(items)
    tokens, probs = reference.of(held, protected)
    first = len(answers.targets) - len(tokens)
    wanted = torch.cat([answers.targets[:, None], torch.zeros(len(answers.targets), tokens.shape[1]).long()], 1)
    share = torch.zeros(wanted.shape)  # of each chosen token in its position's loss
    share[:, 0] = 1
    share[first:, 0] = 1 - kl_weight
    wanted[first:, 1:], share[first:, 1:] = tokens, kl_weight * probs  # KL up to the reference's own entropy
    return -((answers.log_probs(wanted) * share).sum(1) * answers.weights).sum() / len(items)


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
