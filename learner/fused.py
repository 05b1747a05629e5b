"""Several linears that read the same input as one multiplication, their LoRA beside it, and where its gradients go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from learner.blocks import BlockLinear, matrix, write
from learner.int8 import Int8, joined, rounded
from learner.packed import Group


@dataclass(frozen=True, slots=True)
class Member:
    """One PEFT linear inside a fused multiplication: its rows [start, stop) and the names of its adapters."""

    layer: Any
    start: int
    stop: int


class Fused:
    """Linears that read the same input, as one multiplication with their LoRA beside it.

    ``y = (x n) Wᵀ + (x Aᵀ) Bᵀ`` with W [out, in], A [ranks, in] and B [out, ranks] block-diagonal, scale included, and
    n [in] the weight of the norm before it, which is folded into A.
    """

    def __init__(
        self, layers: Sequence[Any], own: str, under: str | None, norm: torch.Tensor | None, dtype: torch.dtype
    ) -> None:
        linears = [layer.base_layer for layer in layers]
        stops = torch.tensor([linear.out_features for linear in linears]).cumsum(0).tolist()
        starts = [0, *stops[:-1]]
        self.members = [Member(*one) for one in zip(layers, starts, stops, strict=True)]
        self.shape, self.dtype = (stops[-1], linears[0].in_features), dtype
        self.norm = norm
        biases = [linear.bias for linear in linears]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases]).to(dtype)
        self._own, self._under = own, under
        self._kept = self._keep(linears)
        self.active = True

    def refresh(self) -> None:
        """Take over the adapters' present weights."""
        dtype, own = self.dtype, self._own
        self.active = bool(self.members[0].layer.scaling[own])
        if not self.active:
            return
        a = torch.cat([member.layer.lora_A[own].weight.detach() for member in self.members])
        self.a = (a if self.norm is None else a * self.norm).to(dtype)
        self.b = torch.zeros(self.shape[0], len(a), dtype=dtype)
        self.scale = self.members[0].layer.scaling[own]
        for member, rank in self._ranks():
            self.b[member.start : member.stop, rank] = member.layer.lora_B[own].weight.detach() * self.scale

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return y [rows, out] and x Aᵀ [rows, ranks]."""
        y, image = _up(self._weight(), x, self.norm), None
        if self.active:
            image = x @ self.a.t()
            y.addmm_(image, self.b.t())
        return (y if self.bias is None else y.add_(self.bias)), image

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor, image: torch.Tensor, sink: "Sink", *, down: bool = True
    ) -> torch.Tensor:
        """Hand the gradients of A and B to `sink`; return that of x, or nothing [0] when nothing is below."""
        inner = grad @ self.b
        if sink.wants_a:
            grad_a = (inner.t() @ x).float()
            grad_a = grad_a if self.norm is None else grad_a * self.norm
            for member, rank in self._ranks():
                sink.put(member.layer.lora_A[self._own].weight, grad_a[rank])
        if sink.per_example:
            self._per_example(grad, image, sink)
        else:
            grad_b = (grad.t() @ image).float().mul_(self.scale)
            for member, rank in self._ranks():
                sink.put(member.layer.lora_B[self._own].weight, grad_b[member.start : member.stop, rank])
        if not down:
            return grad.new_empty(0)
        return _down(self._weight(), grad, self.norm).addmm_(inner, self.a)

    def _weight(self) -> torch.Tensor | Int8:
        """W; made anew at every use where the base is held as blocks."""
        return self._made(self.dtype) if self._kept is None else self._kept

    def _keep(self, linears: Sequence[Any]) -> torch.Tensor | Int8 | None:
        """W; where it is no more than the base's own matrices, these become views of it."""
        if isinstance(linears[0], BlockLinear):
            if not isinstance(linears[0].blocks, Int8):
                return None
            if self._under is not None:
                return rounded(self._made(torch.float32))
            numbers = joined([linear.blocks for linear in linears])
            for member, linear in zip(self.members, linears, strict=True):
                linear.blocks = numbers[member.start : member.stop]
            return numbers
        whole = self._made(self.dtype)
        if self._under is None and linears[0].weight.dtype == self.dtype:
            for member, linear in zip(self.members, linears, strict=True):
                linear.weight.data = whole[member.start : member.stop]
        return whole

    def _made(self, dtype: torch.dtype) -> torch.Tensor:
        """The members' matrices above each other, the adapter below folded in."""
        whole = torch.empty(self.shape, dtype=dtype)
        for member in self.members:
            _write(member.layer, self._under, whole[member.start : member.stop])
        return whole

    def _per_example(self, grad: torch.Tensor, image: torch.Tensor, sink: "Sink") -> None:
        """B's gradient of each example [examples, out, rank]."""
        learning = [(one, rank) for one, rank in self._ranks() if one.layer.lora_B[self._own].weight.requires_grad]
        if not learning:
            return
        found = each(grad, image, sink.segments, sink.examples).mul_(self.scale)
        for member, rank in learning:
            own = found[:, rank, member.start : member.stop]
            sink.put(member.layer.lora_B[self._own].weight, own.transpose(1, 2).contiguous())

    def _ranks(self) -> list[tuple[Member, slice]]:
        """Members with the columns of B that are theirs."""
        found, first = [], 0
        for member in self.members:
            rank = member.layer.lora_A[self._own].weight.shape[0]
            found.append((member, slice(first, first + rank)))
            first += rank
        return found


class Sink:
    """Where gradients go, by parameter: summed, or of each example.

    Attributes:
        segments: rows of each example in what is being multiplied.
    """

    def __init__(self, examples: int, *, per_example: bool, wants_a: bool) -> None:
        self.examples, self.per_example, self.wants_a = examples, per_example, wants_a
        self.segments: Sequence[Group] = ()
        self.gradients: dict[int, torch.Tensor] = {}

    def put(self, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        """Keep one gradient."""
        self.gradients[id(parameter)] = gradient


def total(sinks: Sequence[Sink], parameter: torch.Tensor) -> torch.Tensor | None:
    """What sinks of different examples hold of one parameter: added up, or the examples' one after another."""
    found = [sink.gradients[id(parameter)] for sink in sinks if id(parameter) in sink.gradients]
    if len(found) < 2:
        return found[0] if found else None
    return torch.cat(found) if sinks[0].per_example else torch.stack(found).sum(0)


def each(grad: torch.Tensor, image: torch.Tensor, segments: Sequence[Group], examples: int) -> torch.Tensor:
    """Return imageᵀ grad of each example, float32 [examples, ranks, out], from rows [rows, out] and [rows, ranks].

    In this order the wide matrix is read as it lies; transposed it would be copied first.
    """
    out = torch.empty(examples, image.shape[1], grad.shape[1])
    for group in segments:
        shape = (group.count, group.length, -1)
        found = torch.bmm(image[group.rows].reshape(shape).transpose(1, 2), grad[group.rows].reshape(shape))
        out[list(group.owners)] = found.float()
    return out


def _up(weight: torch.Tensor | Int8, x: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
    """(x n) Wᵀ."""
    if isinstance(weight, Int8):
        return weight.times(x, norm)
    return (x if norm is None else x * norm.to(x.dtype)) @ weight.t()


def _down(weight: torch.Tensor | Int8, grad: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
    """(grad W) n."""
    if isinstance(weight, Int8):
        return weight.back(grad, norm)
    d = grad @ weight
    return d if norm is None else d.mul_(norm.to(d.dtype))


def _write(layer: Any, under: str | None, into: torch.Tensor) -> None:  # noqa: ANN401
    """Write a frozen matrix `into` [out, in], with the adapter below folded in."""
    if under is None:
        write(layer.base_layer, into)
        return
    low, high = layer.lora_A[under].weight.detach(), layer.lora_B[under].weight.detach()
    into.copy_(matrix(layer.base_layer) + layer.scaling[under] * (high @ low))
