"""A Llama-shaped network for training from nothing: the same arithmetic as transformers, in fewer passes.

Weights leave it by `weights()` under the names and in the layout of `LlamaForCausalLM`. It has no generation loop:
answers are measured through llama.cpp on the file that ships.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The size of the network; `width`, `heads * head` and `inner` must be multiples of 32 (Q8_0 blocks)."""

    vocabulary: int
    width: int = 192
    layers: int = 5
    heads: int = 6
    head: int = 32
    inner: int = 448
    context: int = 1024
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5


class _Norm(nn.Module):
    """RMS norm with a gain."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)
        return scaled


class _Layer(nn.Module):
    """Attention and SwiGLU, each behind a norm; query, key and value (gate and up) share one matrix product."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, attended = shape, shape.heads * shape.head
        self.attention_norm = _Norm(shape.width, shape.norm_epsilon)
        self.qkv = nn.Linear(shape.width, 3 * attended, bias=False)
        self.out = nn.Linear(attended, shape.width, bias=False)
        self.inner_norm = _Norm(shape.width, shape.norm_epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], past: Tensor) -> Tensor:
        """x (rows, length, width); past (length, length) is 0 where a token may look and far below 0 elsewhere."""
        rows, length, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, 3, self.shape.heads, self.shape.head)
        q, k, v = qkv.unbind(dim=2)
        q, k, v = (part.transpose(1, 2) for part in (_turned(q, turn), _turned(k, turn), v))
        # In bf16 on short rows the plain product is four times as fast as the fused kernel of torch 2.13 on CPU.
        looks = (q @ k.transpose(-1, -2) * self.shape.head**-0.5 + past).softmax(dim=-1)
        x = x + self.out((looks @ v).transpose(1, 2).reshape(rows, length, -1))
        gate, up = self.gate_up(self.inner_norm(x)).chunk(2, dim=-1)
        fed: Tensor = self.down(F.silu(gate) * up)
        return x + fed


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding in the half-split layout of transformers; x is (rows, length, heads, head)."""
    cos, sin = turn
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class PocketModel(nn.Module):
    """Tokens in, logits at chosen positions out; input and output embeddings are tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = _Norm(shape.width, shape.norm_epsilon)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.layers) ** 0.5 if residual else 0.02)

    def hasten(self) -> None:
        """Compile the layers, once for all batch shapes: about twice the speed for half a minute at the first step."""
        for layer in self.layers:
            layer.compile(dynamic=True)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """tokens (rows, length), padded at the end; wanted holds places in the flattened tokens, row by row.

        Returns the logits after each wanted place, (places, vocabulary).
        """
        x, length = self.embedding(tokens).to(torch.bfloat16), tokens.shape[1]
        turn = _rotation(length, self.shape)
        past = torch.full((length, length), -1e4).triu(1).bfloat16()
        for layer in self.layers:
            x = layer(x, turn, past)
        return F.linear(self.norm(x.flatten(0, 1)[wanted]), self.embedding.weight)

    def weights(self) -> dict[str, Tensor]:
        """The weights under the names of `LlamaForCausalLM`, float32, detached."""
        named = {"model.embed_tokens.weight": self.embedding.weight, "model.norm.weight": self.norm.weight}
        for index, layer in enumerate(self.layers):
            named |= _layer_weights(f"model.layers.{index}.", layer)
        return {name: tensor.detach().float() for name, tensor in named.items()}


def _layer_weights(prefix: str, layer: nn.Module) -> dict[str, Tensor]:
    state = dict(layer.named_parameters())
    query, key, value = state["qkv.weight"].chunk(3)
    gate, up = state["gate_up.weight"].chunk(2)
    return {
        f"{prefix}input_layernorm.weight": state["attention_norm.weight"],
        f"{prefix}self_attn.q_proj.weight": query,
        f"{prefix}self_attn.k_proj.weight": key,
        f"{prefix}self_attn.v_proj.weight": value,
        f"{prefix}self_attn.o_proj.weight": state["out.weight"],
        f"{prefix}post_attention_layernorm.weight": state["inner_norm.weight"],
        f"{prefix}mlp.gate_proj.weight": gate,
        f"{prefix}mlp.up_proj.weight": up,
        f"{prefix}mlp.down_proj.weight": state["down.weight"],
    }


def _rotation(length: int, shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (length, 1, head / 2), in bfloat16."""
    frequency = shape.rope_base ** (-torch.arange(0, shape.head, 2) / shape.head)
    angle = torch.arange(length)[:, None, None] * frequency
    return angle.cos().bfloat16(), angle.sin().bfloat16()
