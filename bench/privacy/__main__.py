"""Usefulness of sharing against epsilon and fleet size, on real people's logs.

``python -m bench.privacy BASE.gguf VOXELURN_FOLDER --out FOLDER``, with a base made by `python -m tools.pocket --data
base_train.jsonl`. Writes ``privacy.json``, ``privacy.md`` and a picture for each unit. ``python -m bench.privacy step``
times a private step against the same step without privacy.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.privacy import data, page, step
from bench.privacy.fleet import Fleet, changes, clipped, exact, mean, noisy, ratio, released, start
from feedback.models import check_model
from learner.accountant import calibrate
from learner.base import load_base
from learner.private import PrivateSpec

DELTA = 1e-6
EPSILONS = (math.inf, 8.0, 4.0, 2.0, 1.0)
FLEETS = (4, 16, 64, 256, 1024)  # devices; beyond the real ones, simulated
UNIT_FLEETS = (64, 1024, 16_384)  # for device-level privacy
REAL = 64
RATES = (10.0, 30.0, 90.0)


@dataclass(frozen=True)
class Row:
    """One setting's outcome."""

    unit: str  # "correction" or "device"; "none" without privacy
    devices: int
    epsilon: float
    noise: float  # multiplier
    signal: float  # norm of the first round's mean over that of its noise
    error: float  # per cent of a stranger's requests answered wrongly
    probe: float  # per cent of the public probe set answered exactly


def course(fleet: Fleet, rounds: int, row: tuple[str, int, float], first: list, floor: float) -> Row:
    """Run `rounds` rounds under one setting."""
    unit, devices, epsilon = row
    noise = 0.0 if math.isinf(epsilon) else calibrate(epsilon, DELTA, sampling_rate=1.0, steps=rounds)
    weights, signal = start(fleet), math.inf
    for number in range(rounds):
        found = first[:devices] if number == 0 else changes(fleet, weights, min(devices, len(first)))
        bound = _bound(first) if unit == "device" else fleet.spec.learning_rate * fleet.spec.clipping_norm
        scale = 1.0 if unit == "device" else 1 / (fleet.spec.divisor * math.sqrt(devices))
        deviation = noise * bound * (1 / devices if unit == "device" else scale)
        change = mean(clipped(found, bound) if unit == "device" else found)
        signal = ratio(change, deviation) if number == 0 else signal
        weights = released(fleet, weights, noisy(change, deviation), floor)
    error = 100 - exact(fleet.base, fleet.newcomers, weights)
    return Row(unit, devices, epsilon, noise, signal, error, exact(fleet.base, fleet.probe, weights))


def _bound(first: list) -> float:
    """A public stand-in for the device-level clipping bound: the median norm of the first round's changes."""
    return float(np.median([np.sqrt(sum(np.square(part).sum() for part in one.values())) for one in first]))


def without_privacy(fleet: Fleet, rounds: int, devices: int, floor: float, steps: int) -> Row:
    """Federated averaging as without any noise: several local steps a round."""
    weights = start(fleet)
    for _ in range(rounds):
        weights = released(fleet, weights, mean(changes(fleet, weights, devices, steps)), floor)
    error = 100 - exact(fleet.base, fleet.newcomers, weights)
    return Row("none", devices, math.inf, 0.0, math.inf, error, exact(fleet.base, fleet.probe, weights))


def choose_rate(fleet: Fleet, tuning: list, floor: float) -> float:
    """The learning rate with the fewest errors on the tuning log after one noiseless round of 16 devices."""

    def error(rate: float) -> float:
        tried = replace(fleet, spec=replace(fleet.spec, learning_rate=rate))
        weights = released(tried, start(tried), mean(changes(tried, start(tried), 16)), floor)
        return 100 - exact(tried.base, tuning, weights)

    return min(RATES, key=error)


def main() -> int:
    """Run and write."""
    if sys.argv[1:2] == ["step"]:
        return step.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench.privacy", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1, help="rounds the budget is spread over")
    parser.add_argument("--size", type=int, default=40, help="corrections a device")
    arguments = parser.parse_args()
    begun = time.process_time()
    base, logs = load_base(check_model(arguments.base)), data.people(arguments.folder)
    spec = PrivateSpec(
        clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=1.0, steps=1, divisor=float(arguments.size),
        learning_rate=RATES[0], rank=2, alpha=4.0, seed_a=20_261_123, layers=99, max_tokens=data.MAX_TOKENS,
    )  # fmt: skip
    fleet = Fleet(
        base, data.devices(logs, arguments.size, REAL), data.strangers(base, logs, 60),
        data.probe(base, arguments.folder, 120), spec,
    )  # fmt: skip
    floor = exact(base, fleet.probe, None)
    nothing = Row("none", 0, math.inf, 0.0, 0.0, 100 - exact(base, fleet.newcomers, None), floor)
    tuning = data.encode_all(base, logs[data.TUNING][-60:], max_tokens=data.MAX_TOKENS)
    fleet = replace(fleet, spec=replace(spec, learning_rate=choose_rate(fleet, tuning, floor)))
    first = changes(fleet, start(fleet), len(fleet.devices))
    rows = [nothing]
    for setting in [
        *(("correction", devices, epsilon) for devices in FLEETS for epsilon in EPSILONS),
        *(("device", devices, epsilon) for devices in UNIT_FLEETS for epsilon in EPSILONS[1:]),
    ]:
        rows.append(course(fleet, arguments.rounds, setting, first, floor))
        print(rows[-1], f"{time.process_time() - begun:.0f} s", flush=True)
    for devices in (4, len(fleet.devices)):
        rows.append(without_privacy(fleet, 2, devices, floor, steps=4))
        print(rows[-1], f"{time.process_time() - begun:.0f} s", flush=True)
    facts = {
        "corrections_a_device": arguments.size, "real_devices": len(fleet.devices), "rounds": arguments.rounds,
        "coordinates": int(sum(part.size for part in first[0].values())), "delta": DELTA,
        "learning_rate": fleet.spec.learning_rate, "stranger_requests": len(fleet.newcomers),
        "probe_requests": len(fleet.probe), "cpu_seconds": round(time.process_time() - begun),
    }  # fmt: skip
    page.write(arguments.out, facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
