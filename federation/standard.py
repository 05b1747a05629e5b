"""The plan a fleet starts from when its operator has no wishes of their own: one place for the public defaults."""

from federation import adapter
from federation.plan import Plan
from federation.spec import Pace, RoundSpec, wire_scale
from feedback.models import ModelFile
from learner.accountant import calibrate
from learner.base import Geometry

SAMPLING_RATE = 0.25
STEPS = 10
DIVISOR = 8.0
LEARNING_RATE = 0.05
CLIPPING_NORM = 1.0
NOISE_MULTIPLIER = 2.0  # assumed where no round has named one yet
RANK, ALPHA, SEED_A = 8, 16.0, 20260101
DELTA = 1e-6


def standard_plan(model: ModelFile, geometry: Geometry, *, rounds: int, devices: int, epsilon: float) -> Plan:
    """Return a plan that costs a correction used in every round at most `epsilon` at delta 1e-6.

    Args:
        model: the base that all devices serve.
        rounds: rounds of one run.
        devices: devices expected; the quorum is all of them, at most three.
        epsilon: for all rounds together.
    """
    noise = calibrate(epsilon, DELTA, sampling_rate=SAMPLING_RATE, steps=STEPS * rounds)
    return Plan(
        rounds=rounds,
        base=model.digest,
        model=str(model.path),
        geometry=geometry,
        spec=standard_spec(geometry, noise),
        pace=Pace(quorum=min(3, devices), expected=devices),
        delta=DELTA,
    )


def standard_spec(geometry: Geometry, noise_multiplier: float) -> RoundSpec:
    """Return the mechanism of one round with the default sampling, clipping and rank."""
    count = sum(outputs * rank for _, outputs, rank in adapter.layout(geometry, RANK))
    quantum, max_norm = wire_scale(
        noise_multiplier=noise_multiplier,
        clipping_norm=CLIPPING_NORM,
        steps=STEPS,
        divisor=DIVISOR,
        learning_rate=LEARNING_RATE,
        count=count,
    )
    return RoundSpec(
        clipping_norm=CLIPPING_NORM,
        noise_multiplier=noise_multiplier,
        sampling_rate=SAMPLING_RATE,
        steps=STEPS,
        divisor=DIVISOR,
        learning_rate=LEARNING_RATE,
        rank=RANK,
        alpha=ALPHA,
        seed_a=SEED_A,
        quantum=quantum,
        max_norm=max_norm,
    )
