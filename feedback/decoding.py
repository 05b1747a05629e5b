"""From logits to text: choosing tokens, their probabilities, and text that grows token by token.

Pure numpy and strings; knows nothing of llama.cpp.
"""

import codecs
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


def choose(logits: Logits, temperature: float, random: np.random.Generator, top_p: float = 1.0) -> int:
    """Return the token to write next: the likeliest at temperature 0, else drawn by the Gumbel-max trick.

    Args:
        logits: shape [vocab].
        top_p: draw among the likeliest tokens that together have this probability.
    """
    if temperature <= 0.0:
        return int(logits.argmax())
    scaled = logits / np.float32(temperature)
    if top_p < 1.0:
        scaled = _nucleus(scaled, top_p)
    return int((scaled + random.gumbel(size=logits.shape)).argmax())


def likeliest(logits: Logits, count: int) -> list[tuple[int, float]]:
    """Return the `count` likeliest tokens of logits [vocab] with their natural-log probabilities, best first."""
    shifted = (logits - logits.max()).astype(np.float64)
    shifted -= np.log(np.exp(shifted).sum())
    best = np.argsort(-shifted, kind="stable")[:count]
    return [(int(token), float(shifted[token])) for token in best]


def _nucleus(logits: Logits, top_p: float) -> Logits:
    """Rule out all but the likeliest tokens that together reach `top_p` (Holtzman et al. 2020)."""
    order = np.argsort(-logits)
    weights = np.exp(logits[order] - logits[order[0]])
    reached = np.cumsum(weights) / weights.sum()
    kept = order[: int(np.searchsorted(reached, top_p)) + 1]
    result = np.full_like(logits, -np.inf)
    result[kept] = logits[kept]
    return result


def log_probabilities(logits: Logits, tokens: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the natural-log probability of `tokens[i]` under `logits[i]`.

    Args:
        logits: shape [n, vocab]; overwritten, which saves a copy of the vocabulary.

    Returns:
        shape [n].
    """
    logits -= logits.max(axis=1, keepdims=True)
    wanted = logits[np.arange(len(tokens)), tokens]
    np.exp(logits, out=logits)
    result: NDArray[np.float32] = wanted - np.log(logits.sum(axis=1))
    return result


def log_probability(logits: Logits, token: int) -> float:
    """Return the natural-log probability of one token under logits [vocab], which are overwritten."""
    logits -= logits.max()
    wanted = float(logits[token])
    np.exp(logits, out=logits)
    return wanted - math.log(float(logits.sum()))


class GrowingText:
    """Text built from token bytes: whole characters only, cut before a stop string.

    A character split over tokens appears when its last byte has come; what may be the start of a stop string is
    held back until it is known not to be one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.text = ""
        self.stopped = False
        self._stop = [word for word in stop if word]
        self._hold = max((len(word) for word in self._stop), default=1) - 1
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown = 0

    def add(self, piece: bytes, *, final: bool = False) -> str:
        """Take the bytes of one more token, or `final` for the end, and return the text that may now be shown."""
        if self.stopped:
            return ""
        start = max(0, len(self.text) - self._hold)
        self.text += self._bytes.decode(piece, final)
        places = [place for word in self._stop if (place := self.text.find(word, start)) >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], True
        end = len(self.text) if final or self.stopped else max(self._shown, len(self.text) - self._hold)
        shown, self._shown = self.text[self._shown : end], end
        return shown
