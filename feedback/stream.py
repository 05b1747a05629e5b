"""An answer as it grows, token by token."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from feedback.answers import Answer, Finish, finite
from feedback.decoding import GrowingText, Logits, choose, likeliest, log_probability
from feedback.llama import Grammar, Vocabulary
from feedback.runner import Pin, Runner
from feedback.slots import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: longest answer.
        stop: strings that end the answer and are not part of it.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn with `seed`.
        top_p: draw among the likeliest tokens that together have this probability.
        grammar: in GBNF notation; the answer follows it. Empty: none.
        alternatives: how many likely tokens to name beside each token.
    """

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    grammar: str = ""
    alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """One step of an answer.

    Attributes:
        text: what may be shown now; whole characters, often empty or of several tokens.
        piece: the token's own bytes; empty in the last step, which only shows what was held back.
        logprob: natural-log probability of the token.
        alternatives: likely tokens in its place, best first.
    """

    text: str
    piece: bytes
    logprob: float
    alternatives: tuple[tuple[bytes, float], ...] = ()


class Stream:
    """Iterate for the tokens; afterwards `answer` is there. `close` it if you stop before the end.

    Attributes:
        stack: digests of the adapters that answer, in order.
    """

    def __init__(self, pin: Pin, grow: Callable[[Callable[[], bool]], Generator[Token, None, Answer]]) -> None:
        self.stack = pin.stack
        self._pin = pin
        self._cancelled = False
        self._growth = grow(lambda: not self._cancelled)
        self.answer: Answer | None = None

    def __iter__(self) -> Iterator[Token]:
        self.answer = yield from self._growth

    def cancel(self) -> None:
        """End the answer at its next token, or in the middle of the prompt; from any thread."""
        self._cancelled = True

    def close(self) -> None:
        """Let go of the model's memory."""
        self._growth.close()


def grow(
    runner: Runner,
    words: Vocabulary,
    prompt: list[int],
    sampling: Sampling,
    stack: Stack,
    limit: int,
    alive: Callable[[], bool],
) -> Generator[Token, None, Answer]:
    """Answer a prompt within `limit` tokens, prompt included; the value returned is the whole answer.

    Raises:
        IntegrityError: model or adapters give numbers that are not finite.
        UsageError: the grammar cannot be used (code ``bad_grammar``).
    """
    text, random = GrowingText(sampling.stop), np.random.default_rng(sampling.seed)
    rule = Grammar(words, sampling.grammar) if sampling.grammar else None
    end = min(len(prompt) + sampling.max_tokens, limit)
    slot = runner.take(prompt, stack, max(end, len(prompt)))
    logprobs: list[float] = []
    finish: Finish = "length"
    try:
        line = list(prompt)
        logits = runner.prefill(slot, prompt, alive)
        while len(line) < end and logits is not None:
            others = _alternatives(logits, sampling.alternatives, words)
            token = _next(logits, sampling, random, rule)
            if token is None:
                finish = "stop"
                break
            logprobs.append(log_probability(logits, token))
            if words.ends(token):
                finish = "stop"
                break
            piece = words.piece(token)
            yield Token(text.add(piece), piece, finite(logprobs[-1]), others)
            line.append(token)
            if text.stopped or not alive():
                finish = "stop" if text.stopped else "cancelled"
                break
            if len(line) < end:
                logits = runner.step(slot, line)
        finish = "cancelled" if not alive() else finish
        mean = finite(float(np.mean(logprobs))) if logprobs else 0.0
    finally:
        runner.free(slot)
    rest = text.add(b"", final=True)
    if rest and finish != "cancelled":
        yield Token(rest, b"", 0.0)
    return Answer(text.text, len(prompt), len(logprobs), mean, finish, stack)


def _next(logits: Logits, sampling: Sampling, random: np.random.Generator, rule: Grammar | None) -> int | None:
    """The token to write next; None when the grammar leaves none."""
    if rule is None:
        return choose(logits, sampling.temperature, random, sampling.top_p)
    allowed = logits.copy()
    rule.mask(allowed)
    if not np.isfinite(allowed).any():
        return None
    token = choose(allowed, sampling.temperature, random, sampling.top_p)
    rule.accept(token)
    return token


def _alternatives(logits: Logits, count: int, words: Vocabulary) -> tuple[tuple[bytes, float], ...]:
    """The likeliest tokens, for who wants to see them."""
    return tuple((words.piece(token), logprob) for token, logprob in likeliest(logits, count)) if count else ()
