"""Exact match of greedy answers through llama.cpp: the score that the model card quotes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
from rich.progress import track

from tools.pocket.data import Pair
from tools.pocket.tokenizer import request_text

CONTEXT = 512


@dataclass(frozen=True)
class Score:
    """How many answers were right, overall and by the first action of the expected answer."""

    right: int
    asked: int
    by_action: dict[str, tuple[int, int]]

    @property
    def percent(self) -> float:
        """Exact answers in percent."""
        return 100 * self.right / self.asked


def answers(model: Path, prompts: Sequence[str], *, threads: int = 1, quiet: bool = False) -> list[str]:
    """The greedy answer to each prompt, asked alone; the empty text where prompt or answer overruns the context."""
    engine = llama_cpp.Llama(
        model_path=str(model), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    try:
        return [_answer(engine, prompt) for prompt in track(prompts, "scoring", disable=quiet)]
    finally:
        engine.close()


def _answer(engine: llama_cpp.Llama, prompt: str) -> str:
    tokens = engine.tokenize(request_text(prompt).encode(), add_bos=False, special=True)
    if len(tokens) >= CONTEXT:
        return ""
    room = CONTEXT - len(tokens)
    reply: list[int] = []
    for token in engine.generate(tokens, temp=0.0, repeat_penalty=1.0):
        if token == engine.token_eos() or len(reply) >= room - 1:
            break
        reply.append(token)
    text: bytes = engine.detokenize(reply)
    return text.decode(errors="replace")


def score(model: Path, pairs: Sequence[Pair], *, threads: int = 1, quiet: bool = False) -> Score:
    """Asks every pair's prompt and compares the answer with the expected one, character by character."""
    given = answers(model, [pair.prompt for pair in pairs], threads=threads, quiet=quiet)
    tally: dict[str, list[bool]] = defaultdict(list)
    for pair, reply in zip(pairs, given, strict=True):
        tally[pair.answer.split("(")[0].split(" ")[0]].append(reply == pair.answer)
    by_action = {action: (sum(hits), len(hits)) for action, hits in sorted(tally.items())}
    return Score(sum(right for right, _ in by_action.values()), len(pairs), by_action)
