"""Per-example gradients of B in the one backward pass, for private training over a frozen base.

Opacus' hooks keep every activation and run PEFT's forward as it is; here one autograd function per adapted linear
computes ``dB_i = scale (dy_i)ᵀ (x_i Aᵀ)`` for each example i directly and leaves it where Opacus' optimiser looks for
it (`parameter.grad_sample`). Clipping and noise stay with the optimiser. The result equals Opacus' own; a test says so.
"""

from collections.abc import Callable
from typing import Any

import torch


class _PerExampleLinear(torch.autograd.Function):
    """``y = x Wᵀ + scale (x Aᵀ) Bᵀ``; only B learns.

    Shapes: x [examples, length, in], W [out, in], A [rank, in], B [out, rank]; the gradient of B is kept per example,
    [examples, out, rank].
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Keep x Aᵀ; x itself is not needed, since neither W nor A learns."""
        image = x @ a.t()
        ctx.save_for_backward(image, weight, a, b)
        ctx.scale = scale
        y: torch.Tensor = x @ weight.t() + image @ (b.detach() * scale).t()
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Gradient of x; the per-example gradient of B goes to `B.grad_sample`."""
        image, weight, a, b = ctx.saved_tensors
        gradient = gradients[0]
        b.grad_sample = ctx.scale * torch.bmm(gradient.transpose(1, 2), image)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = gradient @ weight + (gradient @ (b.detach() * ctx.scale)) @ a
        return grad_x, None, None, None, None


def per_example_forward(layer: Any, own: str) -> Callable[..., torch.Tensor]:  # noqa: ANN401
    """Return a replacement for the forward of one PEFT linear whose B alone learns."""
    weight, bias = layer.base_layer.weight.detach(), layer.base_layer.bias
    a, b = layer.lora_A[own].weight.detach(), layer.lora_B[own].weight

    def forward(x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _PerExampleLinear.apply(x, weight, a, b, layer.scaling[own])  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias

    return forward
