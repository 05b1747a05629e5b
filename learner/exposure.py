"""How well a model tells what it was to forget from what it never saw.

A score is how much likelier an answer is than under the base model, per token and in logarithms (difficulty
calibration, Watson et al. 2021, arXiv 2111.08440). The forgotten under the model in question are held against the
same under a twin that never saw them. Pure, but for the engine that scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedback.engine import Engine
from learner.judge import Stack, score_known, serving
from store.records import Example

MEASURABLE = 5  # examples from which an area under the curve says anything
RESAMPLES = 2000
_FLOOR = 1e-9

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Exposure:
    """Above what a twin shows; an area of 0.5 means that nobody can tell."""

    mean: float  # nats per token above the twin
    auc: float | None = None  # None: too few examples to say
    lower: float | None = None  # of its 95 % bootstrap interval
    upper: float | None = None


def likelihoods(engine: Engine, examples: Sequence[Example], stack: Stack) -> Scores:
    """Return the mean log-likelihood per answer token of every example under `stack`, shape [examples]."""
    with serving(engine, stack, stack):
        return np.log([max(_FLOOR, score.likelihood) for score in score_known(engine, examples)])


def exposure(of: Scores, twin: Scores, *, seed: int = 0) -> Exposure:
    """Hold calibrated scores against those of the twin, example by example; both of shape [examples]."""
    mean = float(np.mean(of - twin))
    if len(of) < MEASURABLE:
        return Exposure(mean)
    rng = np.random.default_rng(seed)
    drawn = [auc(of[rows], twin[rows]) for rows in rng.integers(len(of), size=(RESAMPLES, len(of)))]
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return Exposure(mean, auc(of, twin), float(lower), float(upper))


def auc(members: Scores, others: Scores) -> float:
    """Return the probability that a member scores above another, ties counting half (Mann and Whitney 1947)."""
    difference = members[:, None] - others[None, :]
    return float(np.mean(difference > 0) + np.mean(difference == 0) / 2)
