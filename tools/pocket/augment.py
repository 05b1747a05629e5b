"""New pairs from given ones: a run of words that stands in both request and answer is exchanged in both.

What takes its place has been seen at the same place of another answer (after `playlist:` another playlist, after `add`
another colour), or now and then is made up. Nothing here knows the language of the answers.
"""

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from tools.pocket.data import Pair
from tools.pocket.lexicon import pseudo_name

_PIECE = re.compile(r"[^\W\d]+|\d+|\s+|.", re.DOTALL)
_HEADS = frozenset(";,([{*]")  # what follows one of these is a command or a key and not a value
_ENDS = _HEADS - {","}  # no value goes on past one of these
_MANY = 200  # a place with more fillers than this takes any words at all
Place = tuple[str, str]


class Swapper:
    """Exchanges copied spans between the pairs it was given."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._spans = {pair: copied_spans(pair) for pair in pairs}
        fillers: dict[Place, list[str]] = defaultdict(list)
        for spans in self._spans.values():
            for span, place in spans.items():
                fillers[place].append(span)
        self._fillers = dict(fillers)
        self._open = {place for place, spans in fillers.items() if len(set(spans)) > _MANY}

    def swap(self, pair: Pair, rng: random.Random) -> Pair:
        """The pair with each copied span exchanged with probability one half."""
        prompt, answer = pair.prompt, pair.answer
        for span, place in self._spans[pair].items():
            if rng.random() < 0.5:
                continue
            made_up = place in self._open and not span.isdigit() and rng.random() < 0.25
            new = pseudo_name(rng, 3) if made_up else rng.choice(self._fillers[place])
            if new.isdigit() == span.isdigit() and not _starts(new, prompt):
                prompt, answer = _replace(prompt, span, new), _replace(answer, span, new)
        return Pair(prompt, answer, pair.count)


def copied_spans(pair: Pair) -> dict[str, Place]:
    """Longest runs of words of the answer that also stand in the request, each with its place in the answer.

    The place is the last word before the run and the last mark or word before it.
    """
    found: dict[str, Place] = {}
    answer, at = _PIECE.findall(pair.answer), 0
    while at < len(answer):
        place = _place([piece for piece in answer[:at] if not piece.isspace()], answer[at])
        end = _longest(answer, at, pair.prompt) if place else at
        if place and end > at:
            found.setdefault("".join(answer[at:end]), place)
        at = max(end, at + 1)
    return found


def _place(before: Sequence[str], piece: str) -> Place | None:
    """Where in an answer a piece stands; None where it is a command or a key."""
    if not before or before[-1] in _HEADS:
        return ("#", "#") if piece.isdigit() else None
    return next((word for word in reversed(before) if word[0].isalnum()), ""), before[-1]


def _longest(answer: Sequence[str], start: int, prompt: str) -> int:
    """The end of the longest run from `start` that begins and ends with a word and occurs in the prompt."""
    best, end, numeric = start, start, answer[start].isdigit()
    while end < len(answer) and answer[start][0].isalnum() and answer[end] not in _ENDS:
        end += 1
        if answer[end - 1][0].isalnum():
            if not _starts("".join(answer[start:end]), prompt):
                break
            best = end
            if numeric:
                break
    return best


def _starts(span: str, text: str) -> list[int]:
    """Where the span stands in the text as whole words or as a whole number."""
    inner = str.isdigit if span.isdigit() else _in_word
    starts, at = [], text.find(span)
    while at >= 0:
        after = at + len(span)
        if not (inner(text[at - 1 : at]) or inner(text[after : after + 1])):
            starts.append(at)
        at = text.find(span, at + 1)
    return starts


def _in_word(mark: str) -> bool:
    return mark.isalpha() or mark == "_"


def _replace(text: str, span: str, new: str) -> str:
    for at in reversed(_starts(span, text)):
        text = text[:at] + new + text[at + len(span) :]
    return text
