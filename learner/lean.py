"""The decoder of the Llama family with LoRA, forward and backward written out, for training on ordinary CPUs.

PEFT on transformers runs some sixty operations per layer and keeps their results; here a layer is four multiplications
(q, k and v in one, gate and up in one), attention, and as few passes over memory as they need. What the backward pass
can make again cheaply (activations, normalised inputs' scale) is not kept; with `recompute` a layer keeps only its
input (Chen et al. 2016, arXiv 1604.06174). The last layer goes on with the rows that predict answers alone. Frozen
weights take no gradient; the lowest layer passes none down. Where the base is held in the type of the multiplications
its matrices become views of the fused ones, so that there is one copy.

Changes speed, not meaning: in float32 the gradients equal PEFT's; in bfloat16 they carry its rounding. The stream of
hidden states and its gradient stay float32. Master weights stay in PEFT's layers, so that the optimiser and the export
know nothing of this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from learner.fast import side_by_side
from learner.fused import Fused, Sink, total
from learner.packed import Attention, Group, Kept, Packed, attend, attend_backward

Rope = tuple[torch.Tensor, torch.Tensor]  # cosine and sine [rows, 1, head width / 2]

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    qkv: Fused
    out: Fused
    up: Fused  # gate and up
    down: Fused
    eps: float
    head_norms: tuple[torch.Tensor, torch.Tensor] | None  # of q and k, over one head (Qwen3)
    attention: Attention


@dataclass(slots=True)
class _Saved:
    """What one layer's backward pass needs."""

    x1: torch.Tensor
    scale1: torch.Tensor
    image1: Any
    heads: Any  # q and k before their norms, with their scales
    kept: Kept
    attended: torch.Tensor
    image2: Any
    x2: torch.Tensor
    scale2: torch.Tensor
    image3: Any
    gate_up: torch.Tensor
    image4: Any


class Lean:
    """The decoder of one base with one adapter that learns."""

    def __init__(
        self, model: Any, own: str, under: str | None, dtype: torch.dtype, *, recompute: bool = False,  # noqa: ANN401
        per_example: bool = False,
    ) -> None:  # fmt: skip
        self.dtype, self.recompute, self.per_example = dtype, recompute, per_example
        self._decoder = model.get_decoder()
        config = model.config
        heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        spec = Attention(heads, kv_heads or heads, width, width**-0.5, window=_window(config))
        self.layers = [_layer(layer, own, under, dtype, spec) for layer in self._decoder.layers]
        self._fused = [fused for one in self.layers for fused in (one.qkv, one.out, one.up, one.down)]
        self.parameters = [
            parameter
            for fused in self._fused
            for member in fused.members
            for parameter in (member.layer.lora_A[own].weight, member.layer.lora_B[own].weight)
        ]

    def hidden(self, parts: Sequence[Packed]) -> torch.Tensor:
        """Return the decoder's output float32 [answer tokens, width] where answers are predicted.

        Args:
            parts: of a batch, each worked on by a thread of its own.
        """
        self.refresh()
        keep = torch.is_grad_enabled()
        result: torch.Tensor = _Decoder.apply(self, parts, keep, *self.parameters)  # type: ignore[no-untyped-call]
        return result

    def refresh(self) -> None:
        """Take over the adapter's present weights."""
        for fused in self._fused:
            fused.refresh()

    def run(self, packed: Packed, *, keep: bool) -> tuple[torch.Tensor, list[Any], Rope]:
        """Go up; return the stream of answer rows, what each layer kept, and the rotation."""
        with torch.no_grad():
            stream = self._decoder.embed_tokens(packed.tokens).float()
            cos, sin = self._decoder.rotary_emb(stream, torch.arange(int(packed.places.max()) + 1)[None])
        rope = (_table(cos, packed, self.dtype), _table(sin, packed, self.dtype))
        kept: list[Any] = []
        for number, layer in enumerate(self.layers):
            at = packed.at if number == len(self.layers) - 1 else None
            before = stream.clone() if keep and self.recompute else None
            stream, saved = self._up(layer, stream, rope, packed, at)
            if keep:
                kept.append(saved if before is None else before)
        return stream, kept, rope

    def back(self, grad: torch.Tensor, kept: list[Any], rope: Rope, packed: Packed, sink: Sink) -> None:
        """Go down from the gradient of the stream [answer tokens, width], handing gradients to `sink`."""
        for number in reversed(range(len(self.layers))):
            layer, saved = self.layers[number], kept.pop()
            at = packed.at if number == len(self.layers) - 1 else None
            if self.recompute:
                saved = self._up(layer, saved, rope, packed, at)[1]
            grad = self._down(layer, grad, saved, rope, packed, sink, at, lowest=number == 0)

    def finish(self, stream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The final norm: hidden states and their scale."""
        norm = self._decoder.norm
        x, scale = _normalise(stream, norm.variance_epsilon, torch.float32)
        return x, scale

    @property
    def last_norm(self) -> torch.Tensor:
        """The final norm's weight."""
        weight: torch.Tensor = self._decoder.norm.weight.detach()
        return weight

    def _up(
        self, layer: Layer, stream: torch.Tensor, rope: Rope, packed: Packed,
        at: torch.Tensor | None,
    ) -> tuple[torch.Tensor, _Saved]:  # fmt: skip
        """One layer; changes `stream` in place unless rows are chosen."""
        x1, scale1 = _normalise(stream, layer.eps, self.dtype)
        qkv, image1 = layer.qkv.forward(x1)
        q, k, v, heads = _heads(layer, qkv, rope)
        attended, kept = attend(layer.attention, q, k, v, packed.groups)
        if at is not None:
            attended, stream = attended[at], stream[at]
        y, image2 = layer.out.forward(attended)
        stream = stream.add_(y)
        x2, scale2 = _normalise(stream, layer.eps, self.dtype)
        gate_up, image3 = layer.up.forward(x2)
        half = gate_up.shape[1] // 2
        y, image4 = layer.down.forward(_aten.silu(gate_up[:, :half]).mul_(gate_up[:, half:]))
        saved = _Saved(x1, scale1, image1, heads, kept, attended, image2, x2, scale2, image3, gate_up, image4)
        return stream.add_(y), saved

    def _down(
        self, layer: Layer, grad: torch.Tensor, saved: _Saved, rope: Rope, packed: Packed,
        sink: Sink, at: torch.Tensor | None, *, lowest: bool,
    ) -> torch.Tensor:  # fmt: skip
        """One layer's backward pass; returns the gradient of its input."""
        sink.segments = packed.groups if at is None else packed.answers
        half = saved.gate_up.shape[1] // 2
        gate, up = saved.gate_up[:, :half], saved.gate_up[:, half:]
        active = _aten.silu(gate)
        d = layer.down.backward(grad.to(self.dtype), active * up, saved.image4, sink)
        d_gate_up = torch.empty_like(saved.gate_up)
        torch.mul(d, active, out=d_gate_up[:, half:])
        d_gate_up[:, :half] = _aten.silu_backward(d.mul_(up), gate)
        d = layer.up.backward(d_gate_up, saved.x2, saved.image3, sink)
        grad = _denormalise(grad, d, saved.x2, saved.scale2)
        d = layer.out.backward(grad.to(self.dtype), saved.attended, saved.image2, sink)
        if at is not None:
            grad, d = (_spread(one, at, len(packed.tokens)) for one in (grad, d))
            sink.segments = packed.groups
        d = _heads_backward(layer, d, saved, rope, packed.groups)
        d = layer.qkv.backward(d, saved.x1, saved.image1, sink, down=not lowest)
        return grad if lowest else _denormalise(grad, d, saved.x1, saved.scale1)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one part's way up left for its way down."""

    packed: Packed
    kept: list[Any]
    rope: Rope
    x: torch.Tensor  # float32 [answer tokens, width]
    scale: torch.Tensor


class _Decoder(torch.autograd.Function):
    """The decoder as one function of the adapter's weights."""

    @staticmethod
    def forward(ctx: Any, lean: Lean, parts: Sequence[Packed], keep: bool, *_parameters: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Keep what the layers kept."""

        def up(packed: Packed) -> _Pass:
            stream, kept, rope = lean.run(packed, keep=keep)
            return _Pass(packed, kept, rope, *lean.finish(stream))

        ctx.lean, ctx.passes = lean, side_by_side(up, parts)
        return torch.cat([one.x for one in ctx.passes]) * lean.last_norm

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Gradients of A and B, or None where they went to `grad_sample`, where Opacus' optimiser looks for them."""
        lean: Lean = ctx.lean
        if lean.recompute:  # what was learned may have been turned off since, for the reference
            lean.refresh()
        wants_a = any(parameter.requires_grad for parameter in lean.parameters[::2])
        slopes = torch.split(gradients[0] * lean.last_norm, [len(one.x) for one in ctx.passes])

        def down(work: tuple[_Pass, torch.Tensor]) -> Sink:
            one, slope = work
            sink = Sink(len(one.packed.answers), per_example=lean.per_example, wants_a=wants_a)
            grad = _denormalise(torch.zeros_like(one.x), slope, one.x, one.scale)
            lean.back(grad, one.kept, one.rope, one.packed, sink)
            return sink

        sinks = side_by_side(down, list(zip(ctx.passes, slopes, strict=True)))
        found = [total(sinks, parameter) for parameter in lean.parameters]
        if not lean.per_example:
            return (None, None, None, *found)
        for parameter, gradient in zip(lean.parameters, found, strict=True):
            if gradient is not None:
                parameter.grad_sample = gradient
        return (None,) * (3 + len(found))


def _layer(layer: Any, own: str, under: str | None, dtype: torch.dtype, attention: Attention) -> Layer:  # noqa: ANN401
    """Fuse one of transformers' layers."""
    attn, mlp = layer.self_attn, layer.mlp

    def fuse(names: Sequence[str], parent: Any, norm: Any = None) -> Fused:  # noqa: ANN401
        layers = [getattr(parent, name) for name in names]
        return Fused(layers, own, under, None if norm is None else norm.weight.detach(), dtype)

    qkv = ("qkv_proj",) if hasattr(attn, "qkv_proj") else ("q_proj", "k_proj", "v_proj")
    up = ("gate_up_proj",) if hasattr(mlp, "gate_up_proj") else ("gate_proj", "up_proj")
    norms = (attn.q_norm.weight.detach(), attn.k_norm.weight.detach()) if hasattr(attn, "q_norm") else None
    return Layer(
        fuse(qkv, attn, layer.input_layernorm), fuse(("o_proj",), attn),
        fuse(up, mlp, layer.post_attention_layernorm), fuse(("down_proj",), mlp),
        layer.input_layernorm.variance_epsilon, norms, attention,
    )  # fmt: skip


def _window(config: Any) -> int | None:  # noqa: ANN401
    """Positions a query sees, None for all."""
    window = getattr(config, "sliding_window", None)
    return int(window) if window and getattr(config, "use_sliding_window", True) else None


def _normalise(x: torch.Tensor, eps: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """x over its root mean square along the last axis, in `dtype`, and the factor, float32 [..., 1]."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    factor = torch.rsqrt(size.square_().div_(x.shape[-1]).add_(eps))
    return torch.mul(x, factor, out=torch.empty(x.shape, dtype=dtype)), factor


def _denormalise(into: torch.Tensor, grad: torch.Tensor, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Add to `into` the gradient of what `_normalise` was given, from that of its result `x`; returns `into`."""
    along = torch.linalg.vecdot(grad, x).float().div_(-x.shape[-1])[..., None]
    return into.addcmul_(torch.addcmul(grad, x, along.to(x.dtype)), factor)


def _table(values: torch.Tensor, packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """Half of transformers' rotary table [1, places, head width] (the halves are equal), by row."""
    return values[0, packed.places, None, : values.shape[-1] // 2].to(dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of [rows, heads, width]; `sign` -1 undoes it."""
    half = x.shape[-1] // 2
    one, two = x[..., :half], x[..., half:]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(one, cos, out=out[..., :half])
    torch.mul(two, cos, out=out[..., half:])
    out[..., :half].addcmul_(two, sin, value=-sign)
    out[..., half:].addcmul_(one, sin, value=sign)
    return out


def _heads(layer: Layer, qkv: torch.Tensor, rope: Rope) -> tuple[Any, ...]:
    """Split into heads, normalise where the architecture does, rotate."""
    spec = layer.attention
    heads = qkv.view(len(qkv), -1, spec.width)
    turned, v = heads[:, : spec.heads + spec.kv_heads], heads[:, spec.heads + spec.kv_heads :]
    saved = None
    if layer.head_norms is not None:
        x, factor = _normalise(turned, layer.eps, qkv.dtype)
        saved, turned = (x, factor), x * _head_weights(layer, qkv.dtype)
    turned = _rotate(turned, *rope, 1)
    return turned[:, : spec.heads], turned[:, spec.heads :], v, saved


def _heads_backward(
    layer: Layer, grad: torch.Tensor, saved: _Saved, rope: Rope, groups: Sequence[Group]
) -> torch.Tensor:
    """Gradient of q, k and v side by side [rows, out], from that of the attention's result."""
    spec = layer.attention
    both = spec.heads + spec.kv_heads
    out = grad.new_empty(len(grad), both + spec.kv_heads, spec.width)
    turned = grad.new_empty(len(grad), both, spec.width)
    into = (turned[:, : spec.heads], turned[:, spec.heads :], out[:, both:])
    attend_backward(spec, grad, saved.kept, groups, into)
    turned = _rotate(turned, *rope, -1)
    if saved.heads is not None:
        x, factor = saved.heads
        turned = turned * _head_weights(layer, grad.dtype)
        out[:, :both] = _denormalise(torch.zeros(turned.shape), turned, x, factor)
    else:
        out[:, :both] = turned
    return out.flatten(1)


def _head_weights(layer: Layer, dtype: torch.dtype) -> torch.Tensor:
    """Norm weights of every head of q and k [heads + kv heads, width]."""
    if layer.head_norms is None:
        raise ValueError("this architecture normalises no heads")
    q, k = layer.head_norms
    return torch.cat([q.expand(layer.attention.heads, -1), k.expand(layer.attention.kv_heads, -1)]).to(dtype)


def _spread(x: torch.Tensor, at: torch.Tensor, rows: int) -> torch.Tensor:
    """Put the chosen rows back among zeros."""
    return x.new_zeros(rows, x.shape[1]).index_copy_(0, at, x)
