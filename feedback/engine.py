"""The serving engine: a model and a stack of LoRA adapters that changes without a restart.

Takes turns between threads, keeps what consecutive conversations share, and turns logits into answers and scores.
llama.cpp itself is behind `feedback.llama`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feedback.answers import Answer, Finish, Score, Scored, common, finite, groups, pack, scores
from feedback.decoding import GrowingText, Logits, choose, log_probabilities
from feedback.llama import BATCH, SEQUENCES, SIDE_BY_SIDE, Handle, Llama, Tokens, failed
from feedback.models import ModelFile, check_adapter
from feedback.template import ChatTemplate
from feedback.trace import Trace
from store.errors import CorrigibleError, IntegrityError, UsageError
from store.records import Message, digest

ADAPTERS = 8  # kept loaded

__all__ = ["Answer", "Engine", "Score"]


class Engine:
    """One loaded model and the adapters it serves with.

    Calls from several threads are served one after another; a change of the stack waits for the answer in flight,
    which finishes on the old stack. Callbacks run inside that turn and must not call the engine.

    Args:
        model: a checked model file.
        context: longest conversation with its answer, in tokens; the model's own limit also holds.
        threads: processor threads per call.
        trace: collects what `logits` multiplies; for comparing training with serving, never for serving.

    Raises:
        IntegrityError: llama.cpp does not accept the file.
        UsageError: the model has no chat template (code ``no_template``).
    """

    def __init__(
        self, model: ModelFile, *, context: int = 2048, threads: int = 1, trace: Trace | None = None
    ) -> None:
        self.model = model
        self.context = min(context, model.context)
        self.stack: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._closed = False
        self._adapters: OrderedDict[str, Handle] = OrderedDict()
        self._cached: list[int] = []  # tokens whose keys and values sequence 0 holds
        self._llama = Llama(model, self.context, threads, trace)
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
        with self._lock:
            if not self._closed:
                self._closed = True
                self._llama.close()

    def set_stack(self, adapters: Sequence[tuple[str, bytes]]) -> None:
        """Serve with these adapters from now on, each at scale 1, and forget cached conversations.

        Args:
            adapters: (digest, bytes of the GGUF LoRA) in order of application. Adapters loaded lately are known by
                their digest and not read again.

        Raises:
            IntegrityError: bytes that do not have their digest, a damaged adapter, or one for another base.
                The old stack stays.
        """
        stack = tuple(name for name, _ in adapters)
        with self._turn():
            handles = [self._adapter(name, data) for name, data in adapters]
            if stack != self.stack:
                self._llama.apply(handles)
                self.stack = stack
                self._forget()
            self._evict()

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
        with self._turn():
            prompt = self._prompt(messages)
            text, random = GrowingText(stop), np.random.default_rng(seed)
            logprobs: list[float] = []
            finish: Finish = "length"
            logits = self._prefill(prompt)
            for place in range(len(prompt), min(len(prompt) + max_tokens, self.context)):
                token = choose(logits[0], temperature, random)
                logprobs.append(float(log_probabilities(logits, [token])[0]))
                if self._words.ends(token):
                    finish = "stop"
                    break
                shown = text.add(self._words.piece(token))
                if shown and on_token is not None and not on_token(shown):
                    finish = "cancelled"
                    break
                if text.stopped:
                    finish = "stop"
                    break
                logits = self._step(token, place)
            rest = text.add(b"", final=True)
            if rest and on_token is not None and finish != "cancelled":
                on_token(rest)
            mean = finite(float(np.mean(logprobs))) if logprobs else 0.0
            return Answer(text.text, len(prompt), len(logprobs), mean, finish, self.stack)

    def score(self, messages: Sequence[Message], answer: str) -> Score:
        """Score one answer to one conversation; see `score_many`."""
        return self.score_many([(messages, answer)])[0]

    def score_many(self, items: Sequence[tuple[Sequence[Message], str]]) -> list[Score]:
        """Score given answers without generating: several conversations per pass, one pass over each.

        Raises:
            UsageError: a conversation with its answer does not fit the context (code ``context_length``).
            IntegrityError: model or adapters give numbers that are not finite.
        """
        with self._turn():
            scored = [self._scored(messages, answer) for messages, answer in items]
            self._forget()
            found: list[Score] = []
            for group in groups(scored, SIDE_BY_SIDE, SEQUENCES):
                found += self._score_group(group)
                self._forget()
            return found

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Return the logits after each of `tokens`, shape [len(tokens), vocab].

        Raises:
            UsageError: more tokens than the context holds (code ``context_length``), none, or one out of range.
            IntegrityError: model or adapters give numbers that are not finite.
        """
        if not tokens or min(tokens) < 0 or max(tokens) >= self._words.size:
            raise UsageError("The tokens are none of this model's.")
        with self._turn():
            self._fits(len(tokens))
            self._forget()
            line = np.asarray(tokens, np.int32)
            zeros, ones = np.zeros(len(line), np.int32), np.ones(len(line), np.bool_)
            places = np.arange(len(line), dtype=np.int32)
            found = np.concatenate([part.copy() for part in self._run(line, places, zeros, ones)])
            finite(float(np.abs(found).max()))
            self._forget()
            return found

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of `text`; control tokens written out in it are read as such."""
        with self._turn():
            return self._words.tokens(text, control=True)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the conversation as the model's chat template writes it."""
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    # -- conversation to tokens

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the conversation, where only the template may write control tokens."""
        if any(self._words.has_control(message.content) for message in messages):
            pieces = self._template.segments(messages)
            prompt = [token for text, typed in pieces for token in self._words.tokens(text, control=not typed)]
        else:
            prompt = self._words.tokens(self.render(messages), control=True)
        self._fits(len(prompt) + 1)
        return prompt

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

    # -- tokens to logits

    def _prefill(self, prompt: list[int]) -> Logits:
        """Logits after the prompt, shape [1, vocab]; keeps what an earlier conversation shares with it."""
        shared, self._cached = common(self._cached, prompt[:-1]), []
        shared = self._llama.keep(shared)
        line = np.asarray(prompt[shared:], np.int32)
        outputs = np.zeros(len(line), np.bool_)
        outputs[-1] = True
        *_, last = self._run(line, np.arange(shared, len(prompt), dtype=np.int32), np.zeros_like(line), outputs)
        self._cached = list(prompt)
        return last

    def _step(self, token: int, place: int) -> Logits:
        """Logits after one more token, shape [1, vocab]."""
        logits = self._llama.step(token, place)
        self._cached.append(token)
        return logits

    def _score_group(self, group: Sequence[Scored]) -> list[Score]:
        """Score conversations that fit one pass."""
        packed = pack(group)
        logprobs, hits = np.empty(len(packed.wanted)), np.empty(len(packed.wanted), np.bool_)
        done = 0
        for logits in self._run(packed.tokens, packed.places, packed.sequences, packed.outputs):
            part = slice(done, done := done + len(logits))
            hits[part] = logits.argmax(axis=1) == packed.wanted[part]
            logprobs[part] = log_probabilities(logits, packed.wanted[part])
        return scores(group, logprobs, hits)

    def _run(self, line: Tokens, places: Tokens, sequences: Tokens, outputs: NDArray[np.bool_]) -> Iterator[Logits]:
        """Decode tokens in passes and give the logits of each pass that has any, shape [rows, vocab].

        The rows live in llama.cpp's buffer until the next pass.
        """
        start, counts = 0, np.cumsum(outputs)
        while start < len(line):
            before = int(counts[start - 1]) if start else 0
            end = min(start + BATCH, int(np.searchsorted(counts, before + self._llama.rows, side="right")))
            part = slice(start, end)
            logits = self._llama.decode(line[part], places[part], sequences[part], outputs[part])
            if len(logits):
                yield logits
            start = end

    def _forget(self) -> None:
        """Drop all keys and values."""
        self._cached = []
        self._llama.keep(0)

    # -- adapters and turns

    def _adapter(self, name: str, data: bytes) -> Handle:
        """The loaded adapter of this digest."""
        if name not in self._adapters:
            if digest(data) != name:
                raise IntegrityError("The adapter's bytes do not have its digest.", hint="Roll back to another one.")
            check_adapter(data, self.model.architecture)
            self._adapters[name] = self._llama.load_adapter(data)
        self._adapters.move_to_end(name)
        return self._adapters[name]

    def _evict(self) -> None:
        """Free the adapters used longest ago, never one that serves."""
        idle = [name for name in self._adapters if name not in self.stack]
        for name in idle[: max(0, len(self._adapters) - ADAPTERS)]:
            self._llama.free_adapter(self._adapters.pop(name))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One caller at a time; a closed engine refuses; after an error or an interrupt nothing is left behind."""
        with self._lock:
            if self._closed:
                raise failed("The engine is closed.")
            try:
                yield
            except BaseException:
                self._cached = []
                self._llama.wipe()
                raise
