"""How well a model still knows what it was to forget: its likelihoods against those of a twin that never saw it.

The twin is trained on the same rest with other random choices, so the difficulty of each answer cancels (calibration
by a reference model: Watson et al. 2021, arXiv 2111.08440). Pure, but for the engine that scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedback.engine import Engine
from learner.judge import Stack, score_known, serving
from store.records import Example

_FLOOR = 1e-9

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Exposure:
    """How much likelier the forgotten answers are than under a twin that never saw them, nats per answer token.

    Two twins differ, too, all answers of one kind together: a small value is that, whatever its sign.
    """

    mean: float
    most: float  # of a single answer


def likelihoods(engine: Engine, examples: Sequence[Example], stack: Stack) -> Scores:
    """Return the mean log-likelihood per answer token of every example under `stack`, shape [examples]."""
    with serving(engine, stack, stack):
        return np.log([max(_FLOOR, score.likelihood) for score in score_known(engine, examples)])


def exposure(of: Scores, twin: Scores) -> Exposure:
    """Hold log-likelihoods against those of the twin, example by example; both of shape [examples]."""
    return Exposure(float(np.mean(of - twin)), float(np.max(of - twin)))


def auc(members: Scores, others: Scores) -> float:
    """Return the probability that a member scores above another, ties counting half (Mann and Whitney 1947)."""
    difference = members[:, None] - others[None, :]
    return float(np.mean(difference > 0) + np.mean(difference == 0) / 2)
