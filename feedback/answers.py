"""Answers and scores as values, and how conversations to be scored share one pass.

Pure: plain lists and numpy, nothing of llama.cpp.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.errors import IntegrityError

Finish = Literal["stop", "length", "cancelled"]
Scored = tuple[list[int], list[int]]  # tokens of a conversation, tokens of the answer with its end token


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer and the adapters that made it.

    Attributes:
        tokens_in: length of the prompt in tokens.
        tokens_out: tokens generated, the end token included.
        mean_logprob: mean natural-log probability of the tokens generated; 0 without any.
        finish: end token or stop string (`stop`), `max_tokens` or context used up (`length`), or the caller's word.
        stack: digests of the adapters that answered, in order.
    """

    text: str
    tokens_in: int
    tokens_out: int
    mean_logprob: float
    finish: Finish
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How likely the served stack finds a given answer.

    Attributes:
        logprob: mean natural-log probability per token of the answer, the end token included.
        exact: every token of it is the likeliest one, so greedy decoding gives exactly this answer.
        tokens: length of the answer in tokens, the end token included.
    """

    logprob: float
    exact: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Conversations laid end to end; all arrays but `wanted` have one entry per token.

    Attributes:
        places: position of the token in its own conversation.
        sequences: number of its conversation.
        outputs: whether its logits are wanted.
        wanted: per wanted row of logits, the token that should follow.
    """

    tokens: NDArray[np.int32]
    places: NDArray[np.int32]
    sequences: NDArray[np.int32]
    outputs: NDArray[np.bool_]
    wanted: NDArray[np.int32]


def groups(items: Sequence[Scored], tokens: int, sequences: int) -> Iterator[list[Scored]]:
    """Yield conversations in order, as many at a time as fit one pass; one longer than a pass goes alone."""
    group: list[Scored] = []
    used = 0
    for item in items:
        size = len(item[0]) + len(item[1]) - 1
        if group and (used + size > tokens or len(group) == sequences):
            yield group
            group, used = [], 0
        group.append(item)
        used += size
    if group:
        yield group


def pack(group: Sequence[Scored]) -> Packed:
    """Lay conversations and answers end to end; the end token is wanted but never fed."""
    lines = [[*prompt, *wanted[:-1]] for prompt, wanted in group]
    lengths = [len(line) for line in lines]
    places = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return Packed(
        tokens=np.concatenate([np.asarray(line, np.int32) for line in lines]),
        places=places,
        sequences=np.repeat(np.arange(len(group), dtype=np.int32), lengths),
        outputs=places >= np.repeat([len(prompt) - 1 for prompt, _ in group], lengths),
        wanted=np.concatenate([np.asarray(wanted, np.int32) for _, wanted in group]),
    )


def scores(group: Sequence[Scored], logprobs: NDArray[np.float64], hits: NDArray[np.bool_]) -> list[Score]:
    """Return each conversation's score from the rows of all, in order.

    Args:
        logprobs: natural-log probability of each wanted token.
        hits: whether it was the likeliest.

    Raises:
        IntegrityError: a probability is not finite.
    """
    cuts = np.cumsum([len(wanted) for _, wanted in group])[:-1]
    pairs = zip(np.split(logprobs, cuts), np.split(hits, cuts), strict=True)
    return [Score(finite(float(part.mean())), bool(hit.all()), len(part)) for part, hit in pairs]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def finite(value: float) -> float:
    """Return `value`; raises IntegrityError when the model's numbers have run away."""
    if not math.isfinite(value):
        raise IntegrityError("The model or an adapter gives numbers that are not finite.", hint="Roll back.")
    return value
