"""Log-probabilities of chosen tokens, without keeping a distribution over the whole vocabulary per position.

The head is a fifth of a small model's work over a large vocabulary, so it runs only where answers are predicted. Every
objective here (cross-entropy, KL to remembered probabilities, preference ratios) needs the log-probabilities of a few
tokens per position, so only those come out, and the backward pass makes the distribution again from the logits.
"""

from typing import Any

import torch

_ROWS = 16  # positions whose distribution is held in float32 at once


class _Chosen(torch.autograd.Function):
    """log softmax(cap(h Wᵀ)) at chosen tokens; gradient for h alone."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, chosen: torch.Tensor, cap: float | None  # noqa: ANN401
    ) -> torch.Tensor:
        """Keep the logits in the compute type."""
        logits = _logits(hidden, weight, cap)
        size = torch.cat([torch.logsumexp(part.float(), -1, keepdim=True) for part in torch.split(logits, _ROWS)])
        ctx.save_for_backward(logits, size, chosen, weight)
        ctx.cap = cap
        return logits.gather(1, chosen).float() - size

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """dlogits = onehot(chosen) g - softmax Σg, through the cap, times W."""
        logits, size, chosen, weight = ctx.saved_tensors
        d = torch.empty_like(logits)
        for first in range(0, len(d), _ROWS):
            rows = slice(first, first + _ROWS)
            d[rows] = _slope(logits[rows], size[rows], chosen[rows], gradients[0][rows], ctx.cap)
        return (d @ weight).float(), None, None, None


def _slope(
    logits: torch.Tensor, size: torch.Tensor, chosen: torch.Tensor, grad: torch.Tensor, cap: float | None
) -> torch.Tensor:
    """Gradient of some positions' logits, float32 [positions, vocabulary]."""
    d = (logits.float() - size).exp_().mul_(-grad.sum(1, keepdim=True))
    d.scatter_add_(1, chosen, grad)
    return d.mul_(1 - (logits.float() / cap).square_()) if cap else d


def chosen_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, chosen: torch.Tensor, cap: float | None = None
) -> torch.Tensor:
    """Return log-probabilities float32 [positions, chosen] of the tokens `chosen` [positions, chosen].

    Args:
        hidden: float32 [positions, width].
        weight: the head [vocabulary, width], frozen; its type is that of the multiplication.
        cap: where the architecture soft-caps logits: cap * tanh(logit / cap).
    """
    found: torch.Tensor = _Chosen.apply(hidden, weight, chosen, cap)  # type: ignore[no-untyped-call]
    return found


def all_log_probs(hidden: torch.Tensor, weight: torch.Tensor, cap: float | None = None) -> torch.Tensor:
    """Return log-probabilities float32 [positions, vocabulary]; no gradient."""
    with torch.no_grad():
        return torch.log_softmax(_logits(hidden, weight, cap).float(), -1)


def _logits(hidden: torch.Tensor, weight: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Capped logits in the weight's type."""
    logits = hidden.to(weight.dtype) @ weight.t()
    return logits if not cap else torch.tanh(logits / cap) * cap
