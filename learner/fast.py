"""A faster step for LoRA on a frozen base: one autograd function per adapted linear, in bfloat16 where that is fast.

PEFT's own forward keeps several full-size intermediates per layer; here only the input and its rank-8 image are kept,
the frozen weight takes no gradient, and an adapter that lies underneath is folded into it. Master weights stay
float32 in PEFT's layers, so the optimiser and the export know nothing of this file. Changes speed, not meaning:
in float32 the gradients equal PEFT's; in bfloat16 they carry its rounding.
"""

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")
_SIZES = (512, 256, 256)  # of the multiplication that decides: tokens, in, out
_ROUNDS = 8


class _AdaptedLinear(torch.autograd.Function):
    """``y = x Wᵀ + scale (x Aᵀ) Bᵀ`` with gradients for x, A and B only.

    Shapes: x [tokens, in], W [out, in] in the compute type, A [rank, in], B [out, rank] float32.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float  # noqa: ANN401
    ) -> torch.Tensor:
        """Keep x and x Aᵀ in the compute type."""
        dtype = weight.dtype
        small = x.to(dtype)
        low_a, low_b = a.to(dtype), (b * scale).to(dtype)
        image = small @ low_a.t()
        ctx.save_for_backward(small, image, weight, low_a, low_b)
        ctx.scale = scale
        y: torch.Tensor = torch.addmm(small @ weight.t(), image, low_b.t())
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Gradients of x, A, B; none for the frozen weight."""
        small, image, weight, low_a, low_b = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        inner = gradient @ low_b  # [tokens, rank]
        grad_b = (gradient.t() @ image).float() * ctx.scale
        grad_a = (inner.t() @ small).float()
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.addmm(gradient @ weight, inner, low_a).to(gradients[0].dtype)
        return grad_x, None, grad_a, grad_b, None


def fast_forward(layer: Any, own: str, under: str | None, dtype: torch.dtype) -> Callable[..., torch.Tensor]:  # noqa: ANN401
    """Return a replacement for the forward of one PEFT linear.

    Args:
        own: name of the adapter that learns; its scaling of 0 turns it off.
        under: name of a frozen adapter folded into the weight, or None.
        dtype: of the multiplications.
    """
    weight = layer.base_layer.weight.detach()
    if under is not None:
        low, high = layer.lora_A[under].weight.detach(), layer.lora_B[under].weight.detach()
        weight = weight + layer.scaling[under] * (high @ low)
    weight = weight.to(dtype)
    bias = layer.base_layer.bias

    def forward(x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        scale = layer.scaling[own]
        if scale:
            a, b = layer.lora_A[own].weight, layer.lora_B[own].weight
            y: torch.Tensor = _AdaptedLinear.apply(flat, weight, a, b, scale)  # type: ignore[no-untyped-call]
        else:
            y = (flat.to(dtype) @ weight.t()).to(x.dtype)
        y = y if bias is None else y + bias
        return y.reshape(*x.shape[:-1], -1)

    return forward


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do `work` on every part at once, without gradients; each multiplies with its share of torch's threads.

    Threads that each go through a whole network wait for each other once; threads that share every multiplication wait
    at its end, and stand still in between.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    threads = torch.get_num_threads()

    def alone(part: Part) -> Result:
        torch.set_num_threads(max(1, threads // len(parts)))
        with torch.no_grad():
            return work(part)

    try:
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)


def fastest_dtype() -> torch.dtype:
    """Return bfloat16 where this machine multiplies it clearly faster than float32, else float32; takes some ms."""
    return torch.bfloat16 if _seconds(torch.bfloat16) * 1.3 < _seconds(torch.float32) else torch.float32


@functools.cache
def private_dtype(fast: torch.dtype) -> torch.dtype:
    """Return `fast` where a row of a product does not depend on the rows beside it, bit for bit, else float32.

    Rounding that one example's gradient takes over from the others in its batch would let an example move the sum by
    more than its clipped gradient. Measured here on the machine's own multiplication; float32's last bits are let be.
    """
    tokens, wide, out = _SIZES
    random = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, wide, generator=random).to(fast) for rows in (tokens, out))
    whole = x @ weight.t()
    same = all(torch.equal(x[:rows] @ weight.t(), whole[:rows]) for rows in (1, 7, 30, 64, 100, 333))
    return fast if same else torch.float32


@functools.cache
def int8_is_faster(dtype: torch.dtype) -> bool:
    """Return whether this machine multiplies whole numbers of 8 bits so much faster that rounding to them pays."""
    return _seconds(torch.int8) * 1.5 < _seconds(dtype)


def _seconds(dtype: torch.dtype) -> float:
    """Least time of a typical multiplication."""
    tokens, wide, out = _SIZES
    x, weight = torch.ones(tokens, wide, dtype=dtype), torch.ones(out, wide, dtype=dtype)
    multiply = torch._int_mm if dtype is torch.int8 else torch.mm
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        multiply(x, weight.t())
        times.append(time.perf_counter() - started)
    return min(times)
