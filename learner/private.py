"""Private training: DP-SGD over the B factors of a shared adapter, one correction as the unit. Opacus' one home.

Abadi et al. 2016 (arXiv 1607.00133) as it is accounted: Poisson sampling and Gaussian noise from the OS CSPRNG, with
the sampling rate, the number of steps, the clipping norm and the divisor fixed and public. None depends on how many
examples there are, so a neighbouring data set runs the very same mechanism. A is frozen and comes from a public seed
(FFA-LoRA, Sun et al. 2024, arXiv 2403.12313): averaging B over devices is exact, and noise is not multiplied by noise.

Opacus' optimiser clips the per-example gradients that `per_example` computes; the noise is ours, because Opacus'
secure mode cannot be installed. Accounting is `accountant`'s business, sending is the federation's. Nothing of the run
but the noised change is returned: no loss, no counts.

`run_mechanism` is the whole mechanism on one screen. `audit` drives the same function with canaries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer

from learner.accountant import MechanismRun
from learner.base import Base, head, hidden_states
from learner.encode import Encoded, encode_all
from learner.fast import private_dtype
from learner.lora import Attached, LoraSpec, LoraWeights, attached, extract, layer_of, require_finite
from learner.noise import ClippedSum, noised, poisson_sample
from store.errors import IntegrityError
from store.records import Example

MICROBATCH = 32  # examples whose gradients are held at once; speed and memory only, never the result
PUBLIC_TOKENS = 12  # length of the fixed sequence that the self-checks run on; no data of anybody's

Draw = Callable[[int, float], list[int]]  # units, sampling rate -> indices of the units that join a step
Accumulate = Callable[[Sequence[int]], None]  # leave the gradients of these units, one by one, in `grad_sample`


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

    released = 0  # steps whose noise was added so far

    def accumulate(self) -> None:
        """Clip the per-example gradients at hand, in float32, add them to the step's sum and forget them."""
        for parameter in self.params:
            parameter.grad_sample = parameter.grad_sample.float()
        self._silence()
        self.clip_and_accumulate()
        self._forget()

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
        self.released += 1
        for parameter in self.params:
            parameter.summed_grad = None
            parameter.grad = None

    def require_reach(self) -> None:
        """Check that a public example's gradient reaches every parameter, then forget it.

        Raises:
            IntegrityError: a parameter got no gradient: the run would train into nothing.
        """
        found = [getattr(parameter, "grad_sample", None) for parameter in self.params]
        self._forget()
        if not found or any(one is None or not one.isfinite().all() or not one.any() for one in found):
            raise IntegrityError("a gradient does not reach every weight that learns", code="trained_into_nothing")

    def _silence(self) -> None:
        """Let an example whose gradient is NaN or infinite add nothing.

        A rule of the mechanism, applied to each example by itself, so that the bound holds. Stopping the run instead
        would tell the server that there was such an example.
        """
        sound = torch.stack([sample.flatten(1).isfinite().all(1) for sample in self.grad_samples]).all(0)
        if not sound.all():
            for parameter in self.params:
                parameter.grad_sample[~sound] = 0.0

    def _forget(self) -> None:
        """Drop per-example gradients."""
        for parameter in self.params:
            parameter.grad_sample = None
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
    than `spec.max_tokens` or the model's context, are left out before anything else; an example whose gradient is NaN
    or infinite adds nothing. No examples at all is a run of pure noise.

    Raises:
        IntegrityError: `start` is not finite, a gradient does not reach the weights, or in the end the weights or the
            model's answers did not change (training into nothing), or another mechanism ran than `spec` says.
    """
    require_finite(start)
    sequences = encode_all(base, [one for one in examples if one.share], max_tokens=_longest(base, spec))
    with prepared(base, spec, start=start) as (held, optimizer):
        accumulate = backward(held, sequences)
        run_mechanism(optimizer, len(sequences), accumulate, spec, draw=poisson_sample, progress=progress)
        trained = extract(held)
    return PrivateDelta(_change(start, trained, spec.layers), spec)


def run_mechanism(
    optimizer: SystemNoiseOptimizer,
    units: int,
    accumulate: Accumulate,
    spec: PrivateSpec,
    *,
    draw: Draw,
    progress: Callable[[int, int], None] = lambda _step, _steps: None,
) -> None:
    """Run the mechanism that `spec` names: in each step draw units, sum their clipped gradients, add noise, move.

    An empty draw is a step of pure noise and counts like any other.

    Args:
        units: how many there are to draw from; never leaves this function but as an argument of `draw`.

    Raises:
        IntegrityError: what ran is not what the accountant will be told.
    """
    for step in range(spec.steps):
        chosen = draw(units, spec.sampling_rate)
        if not chosen:
            optimizer.accumulate_nothing()
        for first in range(0, len(chosen), MICROBATCH):
            accumulate(chosen[first : first + MICROBATCH])
            optimizer.accumulate()
        optimizer.release()
        progress(step + 1, spec.steps)
    ran = (optimizer.noise_multiplier, optimizer.max_grad_norm, optimizer.expected_batch_size, optimizer.released)
    if ran != (spec.noise_multiplier, spec.clipping_norm, spec.divisor, spec.steps):
        raise IntegrityError("another mechanism ran than the accountant is told", code="mechanism")


@contextmanager
def prepared(
    base: Base,
    spec: PrivateSpec,
    *,
    start: LoraWeights,
    optimizer: type[SystemNoiseOptimizer] = SystemNoiseOptimizer,
) -> Iterator[tuple[Attached, SystemNoiseOptimizer]]:
    """Hold the shared adapter ready to learn by `spec`; check at both ends that learning reaches the model.

    Raises:
        IntegrityError: see `train_private`.
    """
    lora = LoraSpec(rank=spec.rank, alpha=spec.alpha, seed=spec.seed_a, freeze_a=True)
    with attached(base, lora, start=start) as held:
        before = _public_logits(base)
        held.per_example(private_dtype(base.fast_dtype))
        learner = _optimizer(_learning(held, spec.layers), spec, optimizer)
        backward(held, [_public_item(base)])([0])
        learner.require_reach()
        yield held, learner
        held.plain()  # PEFT's own forward, as the export is tested against
        if learner.released and torch.equal(_public_logits(base), before):
            raise IntegrityError("private training changed no answer", code="trained_into_nothing")


def backward(held: Attached, sequences: Sequence[Encoded]) -> Accumulate:
    """Return the `Accumulate` that backpropagates examples, each the mean loss over its own answer's tokens."""

    def accumulate(chosen: Sequence[int]) -> None:
        answers = held.answers([sequences[index] for index in chosen])
        (-answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]

    return accumulate


def example_gradient_norm(base: Base, example: Example, spec: PrivateSpec, start: LoraWeights) -> float:
    """Return the L2 norm of what `example` alone adds to a step's sum, after clipping; for sensitivity checks."""
    with prepared(base, spec, start=start) as (held, optimizer):
        backward(held, encode_all(base, [example], max_tokens=_longest(base, spec)))([0])
        optimizer.accumulate()
        return float(torch.cat([p.summed_grad.flatten().double() for p in optimizer.params]).norm())


def _longest(base: Base, spec: PrivateSpec) -> int:
    """Tokens an example may have: the spec's bound, within what the model can read."""
    return min(spec.max_tokens, int(getattr(base.model.config, "max_position_embeddings", spec.max_tokens)))


def _public_logits(base: Base) -> torch.Tensor:
    """Logits [1, tokens, vocabulary] of the public item."""
    with torch.no_grad():
        return head(base, hidden_states(base, torch.tensor([_public_item(base).tokens])))


def _public_item(base: Base) -> Encoded:
    """A fixed sequence of tokens, all but the first to be predicted."""
    tokens = tuple(token % base.model.config.vocab_size for token in range(1, 1 + PUBLIC_TOKENS))
    return Encoded("", tokens, 1, (1.0,) * (PUBLIC_TOKENS - 1), False)


def _learning(held: Attached, layers: int) -> list[torch.nn.Parameter]:
    """Freeze the B factors beyond the first `layers` layers; return those that learn."""
    for path, output in held.outputs().items():
        output.requires_grad_(layer_of(path) < layers)
    return held.parameters()


def _optimizer(
    parameters: list[torch.nn.Parameter], spec: PrivateSpec, kind: type[SystemNoiseOptimizer]
) -> SystemNoiseOptimizer:
    """Plain SGD inside Opacus' clipping: its noise is what the update's public scale is computed from."""
    return kind(
        torch.optim.SGD(parameters, lr=spec.learning_rate),
        noise_multiplier=spec.noise_multiplier,
        max_grad_norm=spec.clipping_norm,
        expected_batch_size=spec.divisor,
    )


def _change(start: LoraWeights, trained: LoraWeights, layers: int) -> dict[str, NDArray[np.float32]]:
    """B after minus B before; refuses a run that changed nothing."""
    change = {
        path: np.asarray(trained.b[path] - start.b[path], np.float32) for path in start.b if layer_of(path) < layers
    }
    if not any(array.any() for array in change.values()):
        raise IntegrityError("private training changed no weight", code="trained_into_nothing")
    return change
