"""Does llama.cpp compute what was trained? Logits of the served path against PEFT on the same tokens.

The two read one GGUF: transformers dequantises it to float32, llama.cpp multiplies in the file's own quantisation and
for that rounds the activations as well. So two things are measured. Plainly, how far the served answer is from what was
trained. And under the same rounding, whether both compute the same function: PEFT's inputs of every weight matrix
go through llama.cpp's own rounding code first. What is left then is the order of sums, unless it tips a number over
the edge between two steps of the rounding, which later layers would magnify; so a row of inputs that agrees with the
served one to 1 part in 10,000 is rounded as the served one was. Docs: docs/decisions/0004.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from feedback.engine import Engine
from feedback.trace import Trace, rounded
from learner.base import Base, head, hidden_states, render
from learner.export import tensor_names, to_gguf
from learner.lora import LoraSpec, LoraWeights, attached
from store.records import Message, digest

TEXTS = (
    "turn on the kitchen light",
    "set an alarm for 7:30 tomorrow",
    "add red top 3 times, then go left",
    "Don't; do: 12x4 [a b] {c} — ünïcode 漢字 🙂",
    "remind me to call Ann about the boat on Friday at noon",
)
AGREES = 1e-4  # of a row's largest number
AGREES_GELU = 1e-3  # the same behind llama.cpp's table of GELU, whose steps are those of half precision
_GELU_RANGE = 10.0  # beyond it ggml's GELU is 0 or the number itself


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the served path is from the trained one."""

    max_abs_logit_diff: float
    kl: float  # largest KL(trained || served) of a next-token distribution, nats
    tokens_checked: int
    drift: float = 0.0  # under the same rounding: largest gap of a matrix's input, as a share of its row's largest


def check(
    engine: Engine, base: Base, weights: LoraWeights | None, texts: Sequence[str] = TEXTS, *, trace: Trace | None = None
) -> Parity:
    """Compare logits at every position of `texts`, rendered as requests.

    Leaves the engine serving `weights` alone (nothing for None).

    Args:
        trace: the one `engine` was opened with; then PEFT rounds its activations as the served path does.
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
        rounding = held.enter_context(_rounding(base, trace)) if trace is not None else _Rounding({}, Trace())
        if weights is not None:
            held.enter_context(attached(base, LoraSpec(weights.rank, weights.alpha), start=weights))
        for text in texts:
            tokens = render(base, [Message("user", text)])
            served = torch.from_numpy(np.asarray(engine.logits(tokens)))
            trained = _logits(base, tokens)
            largest = max(largest, float((trained - served).abs().max()))
            kl = max(kl, float(_kl(trained, served).max()))
            count += len(tokens)
    return Parity(largest, kl, count, rounding.drift)


class _Rounding:
    """Rounds the input of each weight matrix as the served path, whose `trace` is at hand, rounds it."""

    def __init__(self, names: dict[torch.nn.Module, str], trace: Trace) -> None:
        self.drift = 0.0
        self.agrees = AGREES
        self.modules = list(names)
        self._names = names
        self._trace = trace

    def __call__(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        """Forward pre-hook: x [1, length, in] -> what llama.cpp takes for it."""
        x = given[0][0].numpy()
        name = self._names[module]
        served = self._trace.inputs[name]
        gap = np.abs(x - served).max(1, keepdims=True) / np.maximum(np.abs(served).max(1, keepdims=True), 1e-30)
        self.drift = max(self.drift, float(gap.max()))
        return (torch.from_numpy(rounded(self._trace.kinds[name], np.where(gap <= self.agrees, served, x)))[None],)


@contextmanager
def _rounding(base: Base, trace: Trace) -> Iterator[_Rounding]:
    """Inside, every weight matrix of `base`, the head included, gets rounded inputs; adapters see them unrounded."""
    names = {base.model.get_submodule(path): name for path, name in tensor_names(base.geometry).items()}
    rounding = _Rounding({**names, base.model.get_output_embeddings(): _head_name(base)}, trace)
    hooks = [module.register_forward_pre_hook(rounding) for module in rounding.modules]
    for module in base.model.modules():
        if "gelu" in type(module).__name__.lower():
            rounding.agrees = AGREES_GELU
            hooks.append(module.register_forward_pre_hook(lambda _module, given: (_half(given[0], given[0]),)))
            hooks.append(module.register_forward_hook(lambda _module, given, result: _half(given[0], result)))
    try:
        yield rounding
    finally:
        for hook in hooks:
            hook.remove()


def _half(given: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x as llama.cpp's table of GELU has it: in half precision where what was given is within its range."""
    return torch.where(given.abs() < _GELU_RANGE, x.half().float(), x)


def _head_name(base: Base) -> str:
    """The head's name in the file: the embedding table where the two are one."""
    return "token_embd.weight" if base.model.config.tie_word_embeddings else "output.weight"


def _logits(base: Base, tokens: Sequence[int]) -> torch.Tensor:
    """Logits [length, vocabulary] of the training path."""
    with torch.no_grad():
        return head(base, hidden_states(base, torch.tensor([list(tokens)])))[0].float()


def _kl(trained: torch.Tensor, served: torch.Tensor) -> torch.Tensor:
    """KL divergence per position [length], nats."""
    p, q = torch.log_softmax(trained, -1), torch.log_softmax(served, -1)
    return (p.exp() * (p - q)).sum(-1)
