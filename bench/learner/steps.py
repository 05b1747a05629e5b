"""One training step, six ways: PEFT as users write it in float32 and bfloat16, ours; Opacus' two ways on PEFT, ours.

All train rank 8 on every projection. The private ones train B alone, which is what is shared, and end with per-example
gradients clipped and summed; noise costs the same everywhere and is left out.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer

from learner.base import Base
from learner.encode import Encoded, collate
from learner.fast import private_dtype
from learner.lora import Attached, LoraSpec, attached

Step = Callable[[], object]
CLIP = 1.0
PRIVATE = LoraSpec(freeze_a=True)


def padded_losses(model: torch.nn.Module, items: list[Encoded], *, per_example: bool) -> torch.Tensor:
    """As users write it: pad, mask, all positions, the whole vocabulary; the mean, or each example's own."""
    batch = collate(items)
    lengths = torch.tensor([len(item.tokens) for item in items])
    mask = (torch.arange(batch.tokens.shape[1])[None] < lengths[:, None]).long()
    labels = batch.tokens.clone()
    for row, item in enumerate(items):
        labels[row, : item.answer_from] = -100
    labels[mask == 0] = -100
    if not per_example:
        loss: torch.Tensor = model(input_ids=batch.tokens, attention_mask=mask, labels=labels, use_cache=False).loss
        return loss
    logits = model(input_ids=batch.tokens, attention_mask=mask, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
    )
    return losses.sum(1) / (labels[:, 1:] != -100).sum(1)


@contextmanager
def peft_plain(base: Base, items: list[Encoded]) -> Iterator[Step]:
    """PEFT in the base's own type."""
    with attached(base, LoraSpec()) as held:
        optimizer = torch.optim.Adam(held.parameters(), lr=1e-3)

        def step() -> None:
            padded_losses(held.peft, items, per_example=False).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        yield step


@contextmanager
def ours(base: Base, items: list[Encoded], *, recompute: bool = False) -> Iterator[Step]:
    """Our personal step."""
    with attached(base, LoraSpec()) as held:
        held.hasten(base.fast_dtype, recompute=recompute)
        optimizer = torch.optim.Adam(held.parameters(), lr=1e-3, fused=True)

        def step() -> None:
            _lean_loss(held, items).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        yield step


@contextmanager
def opacus_hooks(base: Base, items: list[Encoded]) -> Iterator[Step]:
    """Opacus' GradSampleModule and DPOptimizer's clipping."""
    with attached(base, PRIVATE) as held:
        module = GradSampleModule(held.peft, loss_reduction="sum")
        optimizer = _clipper(held)

        def step() -> None:
            padded_losses(module, items, per_example=True).sum().backward()  # type: ignore[no-untyped-call]
            _clip(optimizer)

        yield step
        module.remove_hooks()


@contextmanager
def opacus_ghost(base: Base, items: list[Encoded]) -> Iterator[Step]:
    """Opacus' ghost clipping: a backward pass for the norms, another for the clipped sum."""
    with attached(base, PRIVATE) as held:
        module = GradSampleModuleFastGradientClipping(
            held.peft, loss_reduction="sum", max_grad_norm=CLIP, use_ghost_clipping=True
        )

        def step() -> None:
            losses = padded_losses(module, items, per_example=True)
            module.enable_hooks()
            losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            coefficients = module.get_clipping_coef()
            module.disable_hooks()
            module.zero_grad()
            (coefficients * losses).sum().backward()
            module.enable_hooks()
            module.zero_grad()

        yield step
        module.remove_hooks()


@contextmanager
def ours_private(base: Base, items: list[Encoded]) -> Iterator[Step]:
    """Our private step: per-example gradients of B in the one backward pass, clipped by Opacus' optimiser."""
    with attached(base, PRIVATE) as held:
        held.per_example(private_dtype(base.fast_dtype))
        optimizer = _clipper(held)

        def step() -> None:
            _lean_loss(held, items).backward()  # type: ignore[no-untyped-call]
            _clip(optimizer)

        yield step


def _lean_loss(held: Attached, items: list[Encoded]) -> torch.Tensor:
    """The same loss, at answers only."""
    answers = held.answers(items)
    return -(answers.log_probs()[:, 0] * answers.weights).sum()


def _clipper(held: Attached) -> DPOptimizer:
    """Opacus' optimiser, for its clipping."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DPOptimizer(
            torch.optim.SGD(held.parameters(), lr=1e-3), noise_multiplier=0.0, max_grad_norm=CLIP,
            expected_batch_size=1,
        )  # fmt: skip


def _clip(optimizer: DPOptimizer) -> None:
    """Clip, add up, forget."""
    optimizer.clip_and_accumulate()
    for parameter in optimizer.params:
        parameter.grad = parameter.grad_sample = parameter.summed_grad = None
