"""What a training step minimises: one interface, small functions.

- Corrected answers by cross-entropy, tokens the correction changed weighted up; replayed answers also held to what the
  reference says (learning without forgetting, Li and Hoiem 2016, arXiv 1606.09282).
- Corrections as preferences: the corrected answer over the refused one by DPO (Rafailov et al. 2023, arXiv 2305.18290).
- Thumbs: single answers that were good or bad by KTO (Ethayarajh et al. 2024, arXiv 2402.01306).

The reference is the model with the learning adapter off: the base and whatever lies under the adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from learner.encode import Encoded
from learner.lora import Attached

_TOP = 32  # reference probabilities kept per position; the rest is renormalised away


class Objective(Protocol):
    """Loss of one step."""

    def __call__(self, held: Attached, items: Sequence[Encoded]) -> torch.Tensor:
        """Return the mean loss over the batch `items`, a scalar that can be differentiated."""


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


class Supervised:
    """Weighted cross-entropy; protected items are mixed with KL to the reference by `kl_weight`."""

    def __init__(self, reference: Reference, kl_weight: float) -> None:
        self._reference, self._kl_weight = reference, kl_weight

    def __call__(self, held: Attached, items: Sequence[Encoded]) -> torch.Tensor:
        """See `Objective`."""
        items = sorted(items, key=lambda item: item.protected)  # the protected ones last, so that they are one slice
        answers, kl = held.answers(items), self._kl_weight
        protected = [item for item in items if item.protected]
        if not protected or kl == 0:
            return -(answers.log_probs()[:, 0] * answers.weights).sum() / len(items)
        tokens, probs = self._reference.of(held, protected)
        first = len(answers.targets) - len(tokens)
        wanted = torch.cat([answers.targets[:, None], torch.zeros(len(answers.targets), tokens.shape[1]).long()], 1)
        share = torch.zeros(wanted.shape)  # of each chosen token in its position's loss
        share[:, 0] = 1
        share[first:, 0] = 1 - kl
        wanted[first:, 1:], share[first:, 1:] = tokens, kl * probs  # KL up to the reference's own entropy
        return -((answers.log_probs(wanted) * share).sum(1) * answers.weights).sum() / len(items)


class Preference:
    """DPO on the corrections of a batch whose refused answer is known.

    Args:
        refused: key of a correction -> the same request with the refused answer.
        beta: how strongly the adapter is held to the reference.
    """

    def __init__(self, refused: Mapping[str, Encoded], beta: float) -> None:
        self._refused, self._beta = refused, beta
        self._known: dict[str, float] = {}

    def __call__(self, held: Attached, items: Sequence[Encoded]) -> torch.Tensor:
        """See `Objective`; 0 for a batch without pairs."""
        chosen = [item for item in items if item.key in self._refused]
        if not chosen:
            return torch.zeros((), requires_grad=True)
        both = chosen + [replace(self._refused[item.key], key=f"not {item.key}") for item in chosen]
        ratio = log_ratios(held, both, self._known)
        return dpo(ratio[: len(chosen)], ratio[len(chosen) :], self._beta).sum() / len(items)


class Thumbs:
    """KTO on rated answers, a few in every step, in turn.

    Args:
        rated: answers and whether each was good.
        batch: how many per step, at least two.
        done: steps taken before.
    """

    def __init__(self, rated: Sequence[tuple[Encoded, bool]], beta: float, batch: int, done: int = 0) -> None:
        self._rated, self._beta, self._batch = rated, beta, min(batch, len(rated))
        self._next = done * self._batch
        self._known: dict[str, float] = {}

    def __call__(self, held: Attached, items: Sequence[Encoded]) -> torch.Tensor:
        """See `Objective`; looks at its own items instead."""
        del items
        turn = [self._rated[(self._next + offset) % len(self._rated)] for offset in range(self._batch)]
        self._next += self._batch
        answers = [item for item, _ in turn]
        ratio = log_ratios(held, answers, self._known)
        with torch.no_grad():
            crossed = [_crossed(one, two) for one, two in zip(answers, answers[1:] + answers[:1], strict=True)]
            drift = log_ratios(held, crossed, self._known).mean().clamp(min=0)
        return kto(ratio, torch.tensor([good for _, good in turn]), drift, self._beta).mean()


def dpo(chosen: torch.Tensor, refused: torch.Tensor, beta: float) -> torch.Tensor:
    """Return -log sigmoid(beta (chosen - refused)) per pair: equation 7 of arXiv 2305.18290.

    Args:
        chosen, refused: [pairs], log-likelihood of an answer under the adapter less that under the reference.
    """
    return -torch.nn.functional.logsigmoid(beta * (chosen - refused))


def kto(ratio: torch.Tensor, good: torch.Tensor, drift: torch.Tensor, beta: float) -> torch.Tensor:
    """Return 1 - value per answer, equation 8 of arXiv 2402.01306 with both kinds weighing the same in all.

    Args:
        ratio: [answers], as in `dpo`.
        good: [answers], bool.
        drift: scalar estimate of KL(adapter || reference), not differentiated.
    """
    share = good.float().mean()
    weight = torch.where(good, (1 - share).clamp(min=0.5), share.clamp(min=0.5))
    return weight * (1 - torch.sigmoid(beta * torch.where(good, ratio - drift, drift - ratio)))


def log_ratios(held: Attached, items: Sequence[Encoded], known: dict[str, float]) -> torch.Tensor:
    """Return [items]: log-likelihood of each answer under the adapter less that under the reference.

    Args:
        known: what the reference said, by key of the item; what is missing is added.
    """
    missing = [item for item in items if item.key not in known]
    if missing:
        with torch.no_grad(), held.reference():
            known.update(zip((item.key for item in missing), _likelihoods(held, missing).tolist(), strict=True))
    return _likelihoods(held, items) - torch.tensor([known[item.key] for item in items])


def _likelihoods(held: Attached, items: Sequence[Encoded]) -> torch.Tensor:
    """Log-likelihood of each item's answer [items], nats."""
    sizes = [len(item.weights) for item in items]
    return torch.stack([part.sum() for part in torch.split(held.answers(items).log_probs()[:, 0], sizes)])


def _crossed(one: Encoded, other: Encoded) -> Encoded:
    """The request of `one` with the answer of `other`."""
    tokens = one.tokens[: one.answer_from] + other.tokens[other.answer_from :]
    return replace(one, key=f"{one.key} {other.key}", tokens=tokens, weights=other.weights)
