"""How two answers differ: word by word for people, as one number for the gate."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

WORDS = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of text that both answers have, or only the first (`removed`) or the second (`added`)."""

    kind: Literal["same", "removed", "added"]
    text: str


def word_diff(before: str, after: str) -> list[Change]:
    """Return the changes that turn `before` into `after`, word by word.

    Joining the texts that are not `added` gives `before`, those that are not `removed` gives `after`.
    """
    return list(_changes(WORDS.findall(before), WORDS.findall(after)))


def edit_similarity(a: str, b: str) -> float:
    """Return 1 - (Levenshtein distance in characters) / (length of the longer), in [0, 1]; 1 for equal texts."""
    longest = max(len(a), len(b))
    return 1.0 if a == b else 1.0 - _distance(a, b) / longest


def _changes(before: list[str], after: list[str]) -> Iterator[Change]:
    """The changes between two lists of words."""
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            yield Change("same", "".join(before[i:j]))
            continue
        if i < j:
            yield Change("removed", "".join(before[i:j]))
        if k < m:
            yield Change("added", "".join(after[k:m]))


def _distance(a: str, b: str) -> int:
    """Levenshtein distance: the usual table, one numpy row per character of the shorter text.

    Within a row, the insertions left to right are a running minimum once each column's own index is taken off.
    """
    short, long = sorted((a, b), key=len)
    letters = np.frombuffer(long.encode("utf-32-le", "surrogatepass"), np.uint32)
    columns = np.arange(len(long) + 1)
    row = columns.copy()
    for number, letter in enumerate(short, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(np.concatenate([[number], best]) - columns) + columns
    return int(row[-1])
