"""Private training: DP-SGD over the B factors of a shared adapter, one correction as the unit. Opacus' one home.

Abadi et al. 2016 (arXiv 1607.00133) as it is accounted: Poisson sampling and Gaussian noise from the OS CSPRNG, with
the sampling rate, the number of steps, the clipping norm and the divisor fixed and public. None depends on how many
examples there are, so a neighbouring data set runs the very same mechanism. A is frozen and comes from a public seed
(FFA-LoRA, Sun et al. 2024, arXiv 2403.12313): averaging B over devices is exact, and noise is not multiplied by noise.

Opacus' optimiser clips the per-example gradients that `per_example` computes; the noise is ours, because Opacus'
secure mode cannot be installed. Accounting is `accountant`'s business, sending is the federation's. Nothing of the run
but the noised change is returned: no loss, no counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer

from learner.accountant import MechanismRun
from learner.base import Base
from learner.encode import Encoded, collate, encode_all
from learner.lora import Attached, LoraSpec, LoraWeights, attached, extract, layer_of
from learner.noise import ClippedSum, noised, poisson_sample
from learner.train import answer_log_probs
from store.errors import IntegrityError
from store.records import Example

MICROBATCH = 32  # examples whose gradients are held at once; speed and memory only, never the result


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSpec:
    """One run of the mechanism. Every field is public and fixed before any data is looked at."""

    clipping_norm: float  # L2 bound of one example's gradient over all B factors
    noise_multiplier: float  # standard deviation of the noise of one step, in clipping norms
    sampling_rate: float  # Poisson probability of each example in each step
    steps: int
    divisor: float  # the noised sum is divided by this public number, never by the size of a batch
    learning_rate: float  # of plain SGD
    rank: int
    alpha: float
    seed_a: int
    layers: int  # only the B factors of this many first layers learn: fewer numbers to add noise to
    max_tokens: int = 512  # longer examples are left out
    unit: Literal["correction"] = "correction"

    @property
    def mechanism(self) -> MechanismRun:
        """What the accountant needs to know of the run."""
        return MechanismRun(self.noise_multiplier, self.sampling_rate, self.steps)


@dataclass(frozen=True, slots=True)
class PrivateDelta:
    """The noised change of the B factors that learn, float32 [out, rank], and the mechanism it came from."""

    b: Mapping[str, NDArray[np.float32]]
    spec: PrivateSpec


class SystemNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with noise from the OS CSPRNG, fed by microbatches and released once a step."""

    def accumulate(self) -> None:
        """Clip the per-example gradients at hand, add them to the step's sum and forget them."""
        self.clip_and_accumulate()
        for parameter in self.params:
            parameter.grad_sample = None
            parameter.grad = None

    def accumulate_nothing(self) -> None:
        """Take part in an empty batch: the sum is zero, and the noise will still be added."""
        for parameter in self.params:
            parameter.grad_sample = torch.zeros((0, *parameter.shape))
        self.accumulate()

    def add_noise(self) -> None:
        """Turn the clipped sums into noised gradients, with noise scaled by the bound they were clipped to."""
        sums = tuple(parameter.summed_grad.numpy() for parameter in self.params)
        released = noised(ClippedSum(sums, self.max_grad_norm), self.noise_multiplier)
        for parameter, gradient in zip(self.params, released, strict=True):
            parameter.grad = torch.from_numpy(gradient / np.float32(self.expected_batch_size))

    def release(self) -> None:
        """Add the noise, move the weights, clear the step."""
        self.add_noise()
        self.original_optimizer.step()
        for parameter in self.params:
            parameter.summed_grad = None
            parameter.grad = None


def train_private(
    base: Base,
    examples: Sequence[Example],
    spec: PrivateSpec,
    *,
    start: LoraWeights,
    progress: Callable[[int, int], None] = lambda _step, _steps: None,
) -> PrivateDelta:
    """Run DP-SGD from the shared adapter `start` and return the noised change of its B factors.

    Formal guarantee: with adjacency "add or remove one example", the result is (epsilon, delta)-differentially private
    for every pair that `accountant.epsilon([spec.mechanism], delta)` bounds. Examples not marked for sharing, or longer
    than `spec.max_tokens`, are left out before anything else. No examples at all is a run of pure noise.

    Raises:
        IntegrityError: a gradient was not finite, or the weights did not change (training into nothing).
    """
    shared = [example for example in examples if example.share]
    sequences = encode_all(base, shared, max_tokens=spec.max_tokens)
    lora = LoraSpec(rank=spec.rank, alpha=spec.alpha, seed=spec.seed_a, freeze_a=True)
    with attached(base, lora, start=start) as held:
        held.per_example()
        optimizer = _optimizer(_learning(held, spec.layers), spec)
        for step in range(spec.steps):
            _step(base, optimizer, sequences, spec.sampling_rate)
            progress(step + 1, spec.steps)
        trained = extract(held)
    return PrivateDelta(_change(start, trained, spec.layers), spec)


def example_gradient_norm(base: Base, example: Example, spec: PrivateSpec, start: LoraWeights) -> float:
    """Return the L2 norm of what `example` alone adds to a step's sum, after clipping; for sensitivity checks."""
    lora = LoraSpec(rank=spec.rank, alpha=spec.alpha, seed=spec.seed_a, freeze_a=True)
    with attached(base, lora, start=start) as held:
        held.per_example()
        optimizer = _optimizer(_learning(held, spec.layers), spec)
        _accumulate(base, optimizer, encode_all(base, [example], max_tokens=spec.max_tokens))
        return float(torch.cat([p.summed_grad.flatten().double() for p in optimizer.params]).norm())


def _learning(held: Attached, layers: int) -> list[torch.nn.Parameter]:
    """Freeze the B factors beyond the first `layers` layers; return those that learn."""
    for path, output in held.outputs().items():
        output.requires_grad_(layer_of(path) < layers)
    return held.parameters()


def _optimizer(parameters: list[torch.nn.Parameter], spec: PrivateSpec) -> SystemNoiseOptimizer:
    """Plain SGD inside Opacus' clipping: its noise is what the update's public scale is computed from."""
    return SystemNoiseOptimizer(
        torch.optim.SGD(parameters, lr=spec.learning_rate),
        noise_multiplier=spec.noise_multiplier,
        max_grad_norm=spec.clipping_norm,
        expected_batch_size=spec.divisor,
    )


def _step(base: Base, optimizer: SystemNoiseOptimizer, sequences: Sequence[Encoded], sampling_rate: float) -> None:
    """One step: sample, clip, noise, move. An empty batch is a step of pure noise."""
    chosen = [sequences[index] for index in poisson_sample(len(sequences), sampling_rate)]
    if not chosen:
        optimizer.accumulate_nothing()
    for first in range(0, len(chosen), MICROBATCH):
        _accumulate(base, optimizer, chosen[first : first + MICROBATCH])
    optimizer.release()


def _accumulate(base: Base, optimizer: SystemNoiseOptimizer, group: Sequence[Encoded]) -> None:
    """Backpropagate the sum of the examples' losses, each the mean over its own answer's tokens."""
    batch = collate(group)
    losses = -answer_log_probs(base, batch).gather(1, batch.targets[:, None])[:, 0]
    (losses * batch.weights).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.accumulate()


def _change(start: LoraWeights, trained: LoraWeights, layers: int) -> dict[str, NDArray[np.float32]]:
    """B after minus B before; refuses a run that changed nothing."""
    change = {
        path: np.asarray(trained.b[path] - start.b[path], np.float32) for path in start.b if layer_of(path) < layers
    }
    if not any(array.any() for array in change.values()):
        raise IntegrityError("private training changed no weight", code="trained_into_nothing")
    return change
