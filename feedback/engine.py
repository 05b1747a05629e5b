"""The serving engine: a model and a stack of LoRA adapters that changes without a restart.

Answers and scores conversations; several answers may grow at once. `feedback.runner` keeps them apart,
llama.cpp itself is behind `feedback.llama`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feedback.answers import Answer, Score, Scored, finite, groups, pack, scores
from feedback.decoding import Logits, log_probabilities
from feedback.llama import BATCH, SEQUENCES, SIDE_BY_SIDE, Llama, Tokens
from feedback.models import ModelFile
from feedback.runner import ADAPTERS, Pin, Runner
from feedback.stream import Sampling, Stream, grow
from feedback.template import ChatTemplate, Turn
from feedback.trace import Trace
from store.errors import CorrigibleError, UsageError
from store.records import Message

__all__ = ["ADAPTERS", "Answer", "Engine", "Sampling", "Score", "Stream"]

Adapters = Sequence[tuple[str, bytes]]  # digest and GGUF bytes, in order of application


class Engine:
    """One loaded model and the adapters it serves with.

    Safe for several threads. Up to `parallel` answers grow at once, each with the adapters it began with; more wait.
    Scoring waits until no answer is in flight, so a callback of `generate` must not score.

    Args:
        model: a checked model file.
        context: longest conversation with its answer, in tokens; the model's own limit also holds.
        threads: processor threads per call.
        parallel: answers that may grow at once.
        trace: collects what `logits` multiplies; for comparing training with serving, never for serving.

    Raises:
        IntegrityError: llama.cpp does not accept the file.
        UsageError: the model has no chat template (code ``no_template``).
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        context: int = 2048,
        threads: int = 1,
        parallel: int = 1,
        trace: Trace | None = None,
    ) -> None:
        self.model = model
        self.context = min(context, model.context)
        self._llama = Llama(model, self.context, threads, parallel, trace)
        self._runner = Runner(self._llama, model.architecture, parallel)
        self._serving = self._runner.load([])
        self._words = words = self._llama.words
        try:
            self._template = ChatTemplate(self._llama.template, bos=words.name(words.bos), eos=words.name(words.eos))
            ending = words.tokens(self._template.after_answer(), control=True)
        except CorrigibleError:
            self._llama.close()
            raise
        self._end = ending[0] if ending and words.ends(ending[0]) else words.eos

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; further calls are refused. Closing twice is fine."""
        self._runner.close()

    @property
    def stack(self) -> tuple[str, ...]:
        """Digests of the adapters that serve, in order of application."""
        return self._serving.stack

    @property
    def takes_tools(self) -> bool:
        """Whether the model's chat template can show tools to the model."""
        return self._template.takes_tools

    def set_stack(self, adapters: Adapters) -> None:
        """Serve with these adapters from now on, each at scale 1. Answers in flight finish on the ones before.

        Args:
            adapters: (digest, bytes of the GGUF LoRA) in order of application. Adapters loaded lately are known by
                their digest and not read again.

        Raises:
            IntegrityError: bytes that do not have their digest, a damaged adapter, or one for another base.
                The old stack stays.
        """
        self._serving = self._runner.load(adapters)

    def stream(self, messages: Sequence[Turn], sampling: Sampling, *, adapters: Adapters | None = None,
               tools: Sequence[object] = ()) -> Stream:  # fmt: skip
        """Begin an answer that grows as it is iterated; `close` it if it is not iterated to its end.

        Args:
            adapters: answer with these instead of the stack that serves.
            tools: function definitions for the chat template.

        Raises:
            UsageError: the conversation does not fit the context (code ``context_length``) or the template.
            IntegrityError: as `set_stack`; while iterating, numbers that are not finite.
        """
        pin = self._pinned(adapters)
        return self._stream(self._prompt(messages, tools), sampling, pin)

    def complete(self, text: str, sampling: Sampling, *, adapters: Adapters | None = None) -> Stream:
        """Begin to continue plain text, without a chat template; as `stream`."""
        pin = self._pinned(adapters)
        with self._runner.open():
            prompt = self._words.tokens(text, control=False) or [self._words.eos]
        self._fits(len(prompt) + 1)
        return self._stream(prompt, sampling, pin)

    def generate(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_token: Callable[[str], bool] | None = None,
    ) -> Answer:
        """Answer a conversation.

        Args:
            stop: strings that end the answer and are not part of it.
            temperature: 0 takes the likeliest token each time; above, tokens are drawn with `seed`.
            on_token: called with each new piece of text, whole characters only; False ends the answer there.

        Raises:
            UsageError: the conversation does not fit the context (code ``context_length``) or the template.
            IntegrityError: model or adapters give numbers that are not finite.
        """
        sampling = Sampling(max_tokens=max_tokens, stop=tuple(stop), temperature=temperature, seed=seed)
        with closing(self.stream(messages, sampling)) as stream:
            for token in stream:
                if token.text and on_token is not None and not on_token(token.text):
                    stream.cancel()
        assert stream.answer is not None
        return stream.answer

    def score(self, messages: Sequence[Message], answer: str) -> Score:
        """Score one answer to one conversation; see `score_many`."""
        return self.score_many([(messages, answer)])[0]

    def score_many(self, items: Sequence[tuple[Sequence[Message], str]]) -> list[Score]:
        """Score given answers without generating: several conversations per pass, one pass over each.

        Raises:
            UsageError: a conversation with its answer does not fit the context (code ``context_length``).
            IntegrityError: model or adapters give numbers that are not finite.
        """
        scored = [self._scored(messages, answer) for messages, answer in items]
        found: list[Score] = []
        with self._runner.alone(self._serving) as llama:
            for group in groups(scored, SIDE_BY_SIDE, SEQUENCES):
                found += self._score_group(llama, group)
                llama.clear()
        return found

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Return the logits after each of `tokens`, shape [len(tokens), vocab].

        Raises:
            UsageError: more tokens than the context holds (code ``context_length``), none, or one out of range.
            IntegrityError: model or adapters give numbers that are not finite.
        """
        if not tokens or min(tokens) < 0 or max(tokens) >= self._words.size:
            raise UsageError("The tokens are none of this model's.")
        self._fits(len(tokens))
        line = np.asarray(tokens, np.int32)
        zeros, ones = np.zeros(len(line), np.int32), np.ones(len(line), np.bool_)
        places = np.arange(len(line), dtype=np.int32)
        with self._runner.alone(self._serving) as llama:
            found = np.concatenate([part.copy() for part in _run(llama, line, places, zeros, ones)])
            finite(float(np.abs(found).max()))
        return found

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of `text`; control tokens written out in it are read as such."""
        with self._runner.open():
            return self._words.tokens(text, control=True)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the conversation as the model's chat template writes it."""
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    # -- conversation to tokens

    def _prompt(self, messages: Sequence[Turn], tools: Sequence[object] = ()) -> list[int]:
        """Tokens of the conversation, where only the template may write control tokens."""
        if any(self._words.has_control(message.content) for message in messages):
            pieces = self._template.segments(messages, tools)
        else:
            pieces = [(self._template.render(messages, tools), False)]
        with self._runner.open():
            prompt = [token for text, typed in pieces for token in self._words.tokens(text, control=not typed)]
        self._fits(len(prompt) + 1)
        return prompt

    def _pinned(self, adapters: Adapters | None) -> Pin:
        """The stack to answer with, loaded and kept so."""
        return self._serving if adapters is None else self._runner.load(adapters)

    def _stream(self, prompt: list[int], sampling: Sampling, pin: Pin) -> Stream:
        """An answer to a prompt, not begun yet."""
        return Stream(pin, partial(grow, self._runner, self._words, prompt, sampling, pin.stack, self.context))

    def _scored(self, messages: Sequence[Message], answer: str) -> Scored:
        """Tokens of a conversation and of the answer with its end token."""
        prompt = self._prompt(messages)
        wanted = [*self._words.tokens(answer, control=False), self._end]
        self._fits(len(prompt) + len(wanted))
        return prompt, wanted

    def _fits(self, count: int) -> None:
        """Refuse more tokens than the context holds."""
        if count > self.context:
            message = f"The conversation is {count} tokens long; the context holds {self.context}."
            raise UsageError(message, hint="Shorten it or start a new one.", code="context_length")

    def _score_group(self, llama: Llama, group: Sequence[Scored]) -> list[Score]:
        """Score conversations that fit one pass."""
        packed = pack(group)
        logprobs, hits = np.empty(len(packed.wanted)), np.empty(len(packed.wanted), np.bool_)
        done = 0
        for logits in _run(llama, packed.tokens, packed.places, packed.sequences, packed.outputs):
            part = slice(done, done := done + len(logits))
            hits[part] = logits.argmax(axis=1) == packed.wanted[part]
            logprobs[part] = log_probabilities(logits, packed.wanted[part])
        return scores(group, logprobs, hits)


def _run(llama: Llama, line: Tokens, places: Tokens, sequences: Tokens, outputs: NDArray[np.bool_]) -> Iterator[Logits]:
    """Decode tokens in passes and give the logits of each pass that has any, shape [rows, vocab].

    The rows live in llama.cpp's buffer until the next pass.
    """
    start, counts = 0, np.cumsum(outputs)
    while start < len(line):
        before = int(counts[start - 1]) if start else 0
        end = min(start + BATCH, int(np.searchsorted(counts, before + llama.rows, side="right")))
        part = slice(start, end)
        logits = llama.decode(line[part], places[part], sequences[part], outputs[part])
        if len(logits):
            yield logits
        start = end
