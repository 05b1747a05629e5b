"""Does llama.cpp compute what was trained? Logits of the served path against PEFT on the same tokens.

The two read one GGUF: transformers dequantises it to float32, llama.cpp multiplies in the file's own quantisation.
What is measured on a quantised base is therefore mostly llama.cpp's rounding of activations.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from feedback.engine import Engine
from learner.base import Base, head, hidden_states, render
from learner.export import to_gguf
from learner.lora import LoraSpec, LoraWeights, attached
from store.records import Message, digest

TEXTS = (
    "turn on the kitchen light",
    "set an alarm for 7:30 tomorrow",
    "add red top 3 times, then go left",
    "Don't; do: 12x4 [a b] {c} — ünïcode 漢字 🙂",
    "remind me to call Ann about the boat on Friday at noon",
)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the served path is from the trained one."""

    max_abs_logit_diff: float
    kl: float  # largest KL(trained || served) of a next-token distribution, nats
    tokens_checked: int


def check(engine: Engine, base: Base, weights: LoraWeights | None, texts: Sequence[str] = TEXTS) -> Parity:
    """Compare logits at every position of `texts`, rendered as requests.

    Leaves the engine serving `weights` alone (nothing for None).
    Raises:
        IntegrityError: `weights` does not fit the base.
    """
    adapters = []
    if weights is not None:
        data = to_gguf(weights, base.geometry, base.digest)
        adapters = [(digest(data), data)]
    engine.set_stack(adapters)
    largest, kl, count = 0.0, 0.0, 0
    with ExitStack() as held:
        if weights is not None:
            held.enter_context(attached(base, LoraSpec(weights.rank, weights.alpha), start=weights))
        for text in texts:
            tokens = render(base, [Message("user", text)])
            trained = _logits(base, tokens)
            served = torch.from_numpy(np.asarray(engine.logits(tokens)))
            largest = max(largest, float((trained - served).abs().max()))
            kl = max(kl, float(_kl(trained, served).max()))
            count += len(tokens)
    return Parity(largest, kl, count)


def _logits(base: Base, tokens: Sequence[int]) -> torch.Tensor:
    """Logits [length, vocabulary] of the training path."""
    with torch.no_grad():
        return head(base, hidden_states(base, torch.tensor([list(tokens)])))[0].float()


def _kl(trained: torch.Tensor, served: torch.Tensor) -> torch.Tensor:
    """KL divergence per position [length], nats."""
    p, q = torch.log_softmax(trained, -1), torch.log_softmax(served, -1)
    return (p.exp() * (p - q)).sum(-1)
