"""Past answers found by their requests' words, to be shown in the prompt: the baseline that learning is held against.

Okapi BM25, equation 3.15 of Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond",
with the inverse document frequency kept above zero. Holds text in memory; writes nothing.
"""

import math
import re
from collections import Counter

from store.records import Message

K1, B = 1.2, 0.75  # saturation of a word's count, share of the length's correction: the usual values
_WORD = re.compile(r"\w+|[^\w\s]")


class PastAnswers:
    """Requests with the answers that were right, the newest answer to each."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}
        self._words: dict[str, Counter[str]] = {}
        self._holders: Counter[str] = Counter()  # requests that hold a word
        self._length = 0  # words of all requests

    def add(self, prompt: str, answer: str) -> None:
        """Remember one answer."""
        if prompt not in self._answers:
            words = self._words[prompt] = _words(prompt)
            self._holders.update(words.keys())
            self._length += words.total()
        self._answers[prompt] = answer

    def nearest(self, prompt: str, count: int) -> list[tuple[str, str]]:
        """Return up to `count` requests that share a word with `prompt`, with their answers, the most similar last."""
        wanted = _words(prompt)
        similar = [one for one in self._words if not wanted.keys().isdisjoint(self._words[one])]
        best = sorted(similar, key=lambda one: self._score(wanted, one))[max(0, len(similar) - count) :]
        return [(one, self._answers[one]) for one in best]

    def _score(self, wanted: Counter[str], prompt: str) -> float:
        """The similarity of two requests."""
        words, total = self._words[prompt], len(self._words)
        length = K1 * (1 - B + B * words.total() * total / self._length)
        return sum(
            math.log(1 + (total - self._holders[word] + 0.5) / (self._holders[word] + 0.5))
            * words[word] * (K1 + 1) / (words[word] + length)
            for word in wanted.keys() & words.keys()
        )  # fmt: skip


def conversation(shown: list[tuple[str, str]], prompt: str) -> tuple[Message, ...]:
    """Return `prompt` after what is shown, as earlier turns of one conversation."""
    turns = [(Message("user", asked), Message("assistant", answer)) for asked, answer in shown]
    return (*(message for turn in turns for message in turn), Message("user", prompt))


def _words(text: str) -> Counter[str]:
    """Words and signs, in lower case."""
    return Counter(_WORD.findall(text.lower()))
