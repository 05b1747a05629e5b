"""The one-run audit: how much does what leaves give away, measured, beside what is claimed.

Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846): each of many canaries
joins one run by a fair coin of its own; whoever sees the result guesses the coins; more right guesses than an
(epsilon, delta)-private run allows prove a larger epsilon.

The canaries here are gradient canaries: units whose gradient is given, large and in one coordinate of B, the worst case
of the threat model. They take the product's own way through sampling, clipping, noise, division and the weight's move
(`private.run_mechanism`), together with real examples that are backpropagated. Only their backward pass is not run.

A lower bound proves a leak; a low one proves no privacy. At a claim of 8 even no noise at all would pass with 2,000
canaries, so the mechanism is audited at 2.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.accountant import calibrate
from learner.base import Base
from learner.encode import Encoded, encode_all
from learner.lora import Attached, LoraSpec, fresh
from learner.noise import poisson_sample
from learner.private import Accumulate, Draw, PrivateSpec, SystemNoiseOptimizer, backward, prepared, run_mechanism
from store.errors import UsageError
from store.records import Example

LOUD = 10.0  # norm of a canary's gradient, in clipping norms: clipping has to bring it down
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # shares of the canaries guessed about; the best counts, at its share of the error


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSpec:
    """What is audited and how; public."""

    epsilon: float = 2.0  # claimed for the audited run
    delta: float = 1e-5
    canaries: int = 2000
    steps: int = 4
    confidence: float = 0.95
    rank: int = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """What one audited run showed."""

    claimed: float
    delta: float
    lower: float  # the run is not (lower, delta)-private, at `confidence`
    confidence: float
    canaries: int
    guesses: int
    right: int
    ceiling: float  # what guesses that are all right would prove

    @property
    def holds(self) -> bool:
        """The claim is not refuted."""
        return self.lower <= self.claimed


def audited_spec(spec: AuditSpec) -> PrivateSpec:
    """Return the mechanism that is audited: every unit in every step, noise calibrated to the claim."""
    noise = calibrate(spec.epsilon, spec.delta, sampling_rate=1.0, steps=spec.steps)
    return PrivateSpec(
        clipping_norm=0.5, noise_multiplier=noise, sampling_rate=1.0, steps=spec.steps, divisor=float(spec.canaries),
        learning_rate=1.0, rank=spec.rank, alpha=2.0 * spec.rank, seed_a=1, layers=1_000_000,
    )  # fmt: skip


def audit(
    base: Base,
    spec: AuditSpec,
    mechanism: PrivateSpec,
    examples: Sequence[Example] = (),
    *,
    optimizer: type[SystemNoiseOptimizer] = SystemNoiseOptimizer,
    draw: Draw = poisson_sample,
) -> Finding:
    """Run `mechanism` once with canaries and return what the result proves.

    Args:
        mechanism: of `audited_spec`.
        examples: real ones that train alongside.
        optimizer, draw: the parts audited; a program that audits mutants hands in its own.

    Raises:
        UsageError: fewer coordinates than canaries.
    """
    start = fresh(LoraSpec(mechanism.rank, mechanism.alpha, mechanism.seed_a), base.geometry)
    sequences = encode_all(base, examples, max_tokens=mechanism.max_tokens)
    joined = np.frombuffer(os.urandom(spec.canaries), dtype=np.uint8) % 2 == 1
    with prepared(base, mechanism, start=start, optimizer=optimizer) as (held, learner):
        before = _flat(learner)
        if before.size < spec.canaries:
            raise UsageError(
                f"This adapter has {before.size} numbers, fewer than {spec.canaries} canaries.", code="canaries"
            )
        places = np.random.default_rng().choice(before.size, spec.canaries, replace=False)
        accumulate = _with_canaries(held, sequences, learner, places[joined], LOUD * mechanism.clipping_norm)
        run_mechanism(learner, len(sequences) + int(joined.sum()), accumulate, mechanism, draw=draw)
        scores = (before - _flat(learner))[places]  # descent moves against the gradient
    return judge(scores, joined, spec)


def judge(scores: NDArray[np.floating], joined: NDArray[np.bool_], spec: AuditSpec) -> Finding:
    """Guess that the highest scores joined and the lowest did not; return the best bound over `SHARES`.

    The error allowed is split evenly over the shares tried (Bonferroni).
    """
    order, sides = np.argsort(scores), max(1, len(SHARES))
    error = (1 - spec.confidence) / sides
    best = (-1.0, 0, 0)
    for share in SHARES:
        half = max(1, int(share * len(scores)) // 2)
        right = int(joined[order[-half:]].sum() + (~joined[order[:half]]).sum())
        best = max(best, (lower_bound(len(scores), 2 * half, right, spec.delta, error), 2 * half, right))
    everything = 2 * (len(scores) // 2)
    ceiling = lower_bound(len(scores), everything, everything, spec.delta, error)
    lower, guesses, right = best
    return Finding(spec.epsilon, spec.delta, lower, spec.confidence, len(scores), guesses, right, ceiling)


def lower_bound(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """Return the largest epsilon under which `right` right guesses of `guesses` have probability at most `error`.

    Theorem 5.2 of arXiv 2305.08846, to 0.001; 0 when nothing is proved.
    """
    low, high = 0.0, 20.0
    if _probability(canaries, guesses, right, low, delta) > error:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        fits = _probability(canaries, guesses, right, middle, delta) <= error
        low, high = (middle, high) if fits else (low, middle)
    return low


def _probability(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of `right` or more right guesses under an (epsilon, delta)-private run."""
    from scipy.stats import binom  # slow to import, and only audits need it

    rate = 1.0 / (1.0 + np.exp(-epsilon))  # of randomised response
    fewer = np.arange(right + 1)
    tails = binom.sf(right - fewer - 1, guesses, rate)  # at least right, right - 1, …, 0 right guesses
    excess = (tails[1:] - tails[0]) / fewer[1:]
    return float(min(1.0, tails[0] + 2 * canaries * delta * (excess.max() if excess.size else 0.0)))


def _with_canaries(
    held: Attached,
    sequences: Sequence[Encoded],
    learner: SystemNoiseOptimizer,
    places: NDArray[np.integer],
    norm: float,
) -> Accumulate:
    """Units 0..len(sequences)-1 are backpropagated examples, the others canaries at `places`."""
    real = backward(held, sequences)
    params: list[torch.nn.Parameter] = learner.params
    starts = np.cumsum([0, *(parameter.numel() for parameter in params)])

    def accumulate(chosen: Sequence[int]) -> None:
        texts = [index for index in chosen if index < len(sequences)]
        if texts:
            real(texts)
        coordinates = [int(places[index - len(sequences)]) for index in chosen if index >= len(sequences)]
        rows = [_one_hot(p, int(first), coordinates, norm) for p, first in zip(params, starts, strict=False)]
        for parameter, row in zip(params, rows, strict=True):
            found = getattr(parameter, "grad_sample", None)
            vars(parameter)["grad_sample"] = row if found is None else torch.cat([found, row])

    return accumulate


def _one_hot(parameter: torch.nn.Parameter, first: int, coordinates: Sequence[int], norm: float) -> torch.Tensor:
    """Gradients [canaries, *shape] that are `norm` in one coordinate each, of those that lie in this parameter."""
    rows = torch.zeros(len(coordinates), parameter.numel())
    for row, coordinate in enumerate(coordinates):
        if first <= coordinate < first + parameter.numel():
            rows[row, coordinate - first] = norm
    return rows.reshape(len(coordinates), *parameter.shape)


def _flat(learner: SystemNoiseOptimizer) -> NDArray[np.float64]:
    """All weights that learn as one vector."""
    parts = [parameter.detach().double().flatten() for parameter in learner.params]
    flat: NDArray[np.float64] = torch.cat(parts).numpy().copy()
    return flat
