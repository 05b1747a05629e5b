"""From an example to tokens: the prompt as the model's template renders it, the answer, and a weight per answer token.

Prompt and answer are tokenised apart, as serving sees them: the prompt whole, the answer token by token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch

from learner.base import Base, render, tokenize
from store.records import Example


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training item."""

    key: str  # the example's id
    tokens: tuple[int, ...]  # prompt, answer, end
    answer_from: int  # index of the first answer token
    weights: tuple[float, ...]  # loss weight per answer token, end included; sums to 1
    protected: bool  # a skill of the base model's own: the reference's opinion of it counts


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded tokens and where their answers are predicted."""

    tokens: torch.Tensor  # int64 [batch, length]
    at: torch.Tensor  # int64 [answer tokens]: flat index into [batch * length] of the predicting position
    targets: torch.Tensor  # int64 [answer tokens]
    weights: torch.Tensor  # float32 [answer tokens]
    owner: torch.Tensor  # int64 [answer tokens]: row of the batch


def encode(base: Base, example: Example, *, max_tokens: int, changed_weight: float = 1.0) -> Encoded | None:
    """Return the tokens of `example`, or None when it is longer than `max_tokens`."""
    prompt = render(base, example.messages)
    answer = [*tokenize(base, example.answer), base.end]
    if len(prompt) + len(answer) > max_tokens:
        return None
    weights = [1.0] * len(answer)
    if example.rejected is not None and changed_weight != 1.0:
        refused = [*tokenize(base, example.rejected), base.end]
        weights = [changed_weight if new else 1.0 for new in _changed(refused, answer)]
    total = sum(weights)
    return Encoded(
        example.id, (*prompt, *answer), len(prompt), tuple(weight / total for weight in weights),
        example.rejected is None and not example.said,
    )


def encode_all(
    base: Base, examples: Iterable[Example], *, max_tokens: int, changed_weight: float = 1.0
) -> list[Encoded]:
    """Encode what fits; what is too long is left out."""
    encoded = (encode(base, one, max_tokens=max_tokens, changed_weight=changed_weight) for one in examples)
    return [item for item in encoded if item is not None]


def collate(items: Sequence[Encoded]) -> Batch:
    """Pad `items` to one length; pads are token 0 and never predicted."""
    length = max(len(item.tokens) for item in items)
    tokens = torch.zeros(len(items), length, dtype=torch.int64)
    at: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for row, item in enumerate(items):
        tokens[row, : len(item.tokens)] = torch.tensor(item.tokens)
        answer = item.tokens[item.answer_from :]
        at.extend(row * length + item.answer_from - 1 + step for step in range(len(answer)))
        targets.extend(answer)
        owner.extend([row] * len(answer))
    weights = [weight for item in items for weight in item.weights]
    return Batch(tokens, torch.tensor(at), torch.tensor(targets), torch.tensor(weights), torch.tensor(owner))


def _changed(refused: Sequence[int], wanted: Sequence[int]) -> list[bool]:
    """Mark the tokens of `wanted` that `refused` did not have in that place."""
    marks = [True] * len(wanted)
    for block in SequenceMatcher(None, refused, wanted, autojunk=False).get_matching_blocks():
        marks[block.b : block.b + block.size] = [False] * block.size
    return marks
