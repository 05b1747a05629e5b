"""Sequences without padding to the longest: rows of tokens, and causal attention among the rows of one sequence.

Sequences of nearly one length form a group and are padded within it, so that a group is a plain batch and nothing is
gathered or scattered; a few per cent of the rows are padding. Attention multiplies all query heads of one key-value
head at once. PyTorch's fused attention for CPUs is slower at these lengths, its backward pass many times.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from learner.encode import Encoded

_SHORTEST = 0.85  # of a group's longest sequence
_PART = 256  # tokens that a part of a batch has at least


@dataclass(frozen=True, slots=True)
class Group:
    """`count` sequences of `length` rows each, from row `start` on; `owners` are their places among the items."""

    start: int
    count: int
    length: int
    owners: tuple[int, ...]

    @property
    def rows(self) -> slice:
        """The group's rows."""
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True, slots=True)
class Packed:
    """Items as rows. Answers stand in the order of the items; pads come after a sequence and are seen by nothing."""

    tokens: torch.Tensor  # int64 [rows]
    places: torch.Tensor  # int64 [rows]: position in the sequence
    groups: tuple[Group, ...]
    at: torch.Tensor  # int64 [answer tokens]: row of the predicting position
    targets: torch.Tensor  # int64 [answer tokens]
    weights: torch.Tensor  # float32 [answer tokens]
    answers: tuple[Group, ...]  # the answers as rows of their own, one sequence each


def parts(items: Sequence[Encoded], threads: int) -> list[Packed]:
    """Cut a batch into as many parts as threads can work on, in its order and of about as many tokens each."""
    lengths = np.array([len(item.tokens) for item in items])
    whole = int(lengths.sum())
    count = max(1, min(threads, whole // _PART))
    middles = lengths.cumsum() - lengths / 2
    cut: list[list[Encoded]] = [[] for _ in range(count)]
    for item, middle in zip(items, middles, strict=True):
        cut[int(middle * count // whole)].append(item)
    return [pack(part) for part in cut if part]


def pack(items: Sequence[Encoded]) -> Packed:
    """Lay out `items` as rows, longest first."""
    order = sorted(range(len(items)), key=lambda index: -len(items[index].tokens))
    groups: list[Group] = []
    start = first = 0
    while first < len(order):
        length = len(items[order[first]].tokens)
        last = first + 1
        while last < len(order) and len(items[order[last]].tokens) >= _SHORTEST * length:
            last += 1
        groups.append(Group(start, last - first, length, tuple(order[first:last])))
        start, first = start + (last - first) * length, last
    tokens = torch.zeros(start, dtype=torch.int64)
    begins = [0] * len(items)
    for group in groups:
        for place, owner in enumerate(group.owners):
            begins[owner] = begin = group.start + place * group.length
            tokens[begin : begin + len(items[owner].tokens)] = torch.tensor(items[owner].tokens)
    places = torch.cat([torch.arange(group.length).repeat(group.count) for group in groups])
    at, answers = _answers(items, begins)
    targets = torch.tensor([token for item in items for token in item.tokens[item.answer_from :]])
    weights = torch.tensor([weight for item in items for weight in item.weights])
    return Packed(tokens, places, tuple(groups), at, targets, weights, answers)


def _answers(items: Sequence[Encoded], begins: Sequence[int]) -> tuple[torch.Tensor, tuple[Group, ...]]:
    """Rows that predict answers, and where each item's lie among them."""
    at: list[int] = []
    answers: list[Group] = []
    for owner, (item, begin) in enumerate(zip(items, begins, strict=True)):
        answers.append(Group(len(at), 1, len(item.weights), (owner,)))
        at.extend(range(begin + item.answer_from - 1, begin + len(item.tokens) - 1))
    return torch.tensor(at), tuple(answers)


@dataclass(frozen=True, slots=True)
class Attention:
    """What stays the same over layers: heads and how scores are scaled, capped and limited."""

    heads: int
    kv_heads: int
    width: int  # of one head
    scale: float
    cap: float | None = None  # scores are cap * tanh(score / cap)
    window: int | None = None  # positions a query sees, itself included; None for all


Kept = list[tuple[torch.Tensor, ...]]  # per group: q, k, v, probabilities, and the capped scores' tanh where capped


def attend(
    spec: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: Sequence[Group]
) -> tuple[torch.Tensor, Kept]:
    """Return causal attention [rows, heads * width] and what its backward pass needs.

    Shapes: q [rows, heads, width]; k, v [rows, kv heads, width].
    """
    out = q.new_empty(q.shape)
    kept: Kept = []
    for group in groups:
        part = (_split(spec, q, group), _split(spec, k, group), _split(spec, v, group))
        scores = _scores(spec, part[0], part[1], group.length)
        tanh: tuple[torch.Tensor, ...] = ()
        if spec.cap:
            capped = torch.tanh(scores / spec.cap)
            tanh = (capped.to(q.dtype),)
            scores = capped * spec.cap + _mask(spec, group.length, scores.dtype)
        p = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
        _join(spec, torch.bmm(p, part[2]), group, out)
        kept.append((*part, p, *tanh))
    return out.flatten(1), kept


def attend_backward(
    spec: Attention, grad: torch.Tensor, kept: Kept, groups: Sequence[Group], into: tuple[torch.Tensor, ...]
) -> None:
    """Write the gradients of q, k and v (shapes as in `attend`) `into` place, given that of the result."""
    grad = grad.view(len(grad), spec.heads, spec.width)
    for group, (q, k, v, p, *tanh) in zip(groups, kept, strict=True):
        g = _split(spec, grad, group)
        _join(spec, torch.bmm(p.transpose(1, 2), g), group, into[2])
        d: Any = torch.ops.aten._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
        if tanh:
            d = d * (1 - tanh[0] * tanh[0])
        _join(spec, _times(d, k, spec.scale), group, into[0])
        _join(spec, _times(d.transpose(1, 2), q, spec.scale), group, into[1])


def _scores(spec: Attention, q: torch.Tensor, k: torch.Tensor, length: int) -> torch.Tensor:
    """Scaled scores [count * kv heads, heads / kv heads * length, length], masked unless they will be capped.

    float32 whatever the type of the rest: rounded to bfloat16 before the softmax they were most of its error.
    """
    q, k = q.float(), k.float()
    if spec.cap:
        return _times(q, k.transpose(1, 2), spec.scale)
    mask = _mask(spec, length, q.dtype)  # a view of the same rows for every sequence and key-value head
    return torch.baddbmm(mask.expand(len(q), *mask.shape), q, k.transpose(1, 2), alpha=spec.scale)


@functools.lru_cache(maxsize=32)
def _mask(spec: Attention, length: int, dtype: torch.dtype) -> torch.Tensor:
    """0 where a query sees a key, else -inf: [heads / kv heads * length, length]."""
    mask = torch.full((length, length), float("-inf"), dtype=dtype).triu(1)
    if spec.window is not None and spec.window < length:
        mask += torch.full((length, length), float("-inf"), dtype=dtype).tril(-spec.window)
    return mask.repeat(spec.heads // spec.kv_heads, 1)


def _times(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Scaled product of batches of matrices."""
    return torch.baddbmm(a.new_empty(len(a), a.shape[1], b.shape[2]), a, b, beta=0, alpha=scale)


def _split(spec: Attention, x: torch.Tensor, group: Group) -> torch.Tensor:
    """Rows [rows, heads, width] -> [count * kv heads, heads / kv heads * length, width] of one group."""
    shape = (group.count, group.length, spec.kv_heads, x.shape[1] // spec.kv_heads, spec.width)
    return x[group.rows].reshape(shape).permute(0, 2, 3, 1, 4).reshape(group.count * spec.kv_heads, -1, spec.width)


def _join(spec: Attention, part: torch.Tensor, group: Group, into: torch.Tensor) -> None:
    """Inverse of `_split`, written into the group's rows."""
    each = into.shape[1] // spec.kv_heads
    heads = part.view(group.count, spec.kv_heads, each, group.length, spec.width).permute(0, 3, 1, 2, 4)
    into[group.rows] = heads.reshape(group.count * group.length, -1, spec.width)
