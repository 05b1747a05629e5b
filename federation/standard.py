"""The plan a fleet starts with: a mechanism whose privacy is fixed first and whose noise follows from it.

The figures and the measurements behind them are in docs/decisions/0005-private-sharing.md.
"""

from federation.plan import Plan
from federation.spec import Limits, Pace, RoundSpec, wire_scale
from feedback.models import ModelFile
from learner.accountant import calibrate
from learner.base import Geometry
from learner.lora import layer_of

SEED_A = 20_261_123
RANK = 2
ALPHA = 4.0
LAYERS = 5  # the first layers learn
STEPS = 1  # per round, from where all devices agree
SAMPLING_RATE = 1.0
CLIPPING_NORM = 0.5
LEARNING_RATE = 240.0
DIVISOR = 240.0  # public stand-in for the number of corrections on a device


def standard_plan(model: ModelFile, geometry: Geometry, *, rounds: int, devices: int, epsilon: float) -> Plan:
    """Return a plan of `rounds` rounds that together cost one correction at most `epsilon`.

    Args:
        model: the base GGUF.
        geometry: of that base.
        rounds: rounds the budget is spread over, and the rounds of the run.
        devices: devices worth waiting for.
        epsilon: for all rounds together, at the devices' standard delta.
    """
    delta = Limits().delta
    noise = calibrate(epsilon, delta, sampling_rate=SAMPLING_RATE, steps=STEPS * rounds)
    count = sum(outputs * RANK for path, (outputs, _) in geometry.shapes.items() if layer_of(path) < LAYERS)
    quantum, max_norm = wire_scale(
        noise_multiplier=noise,
        clipping_norm=CLIPPING_NORM,
        steps=STEPS,
        divisor=DIVISOR,
        learning_rate=LEARNING_RATE,
        count=count,
    )
    spec = RoundSpec(
        clipping_norm=CLIPPING_NORM,
        noise_multiplier=noise,
        sampling_rate=SAMPLING_RATE,
        steps=STEPS,
        divisor=DIVISOR,
        learning_rate=LEARNING_RATE,
        rank=RANK,
        alpha=ALPHA,
        seed_a=SEED_A,
        layers=LAYERS,
        quantum=quantum,
        max_norm=max_norm,
    )
    pace = Pace(quorum=min(3, devices), expected=devices)
    return Plan(
        rounds=rounds, base=model.digest, model=str(model.path), geometry=geometry, spec=spec, pace=pace, delta=delta,
        spread=rounds,
    )
