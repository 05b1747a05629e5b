"""Usefulness of sharing against epsilon and fleet size, on real requests.

``python -m bench.privacy BASE.gguf FOLDER --out FOLDER``, with FOLDER of Voxelurn or of SNIPS and a base made for it
(README). One round of one step holds the whole budget. Writes ``NAME.json``, ``NAME.md`` and a picture for each unit
after every row; started again with the same FOLDERS, it goes on after the last one.
``python -m bench.privacy step`` times a private step against the same step without privacy.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.privacy import data, page, step
from bench.privacy.fleet import (
    Change,
    Fleet,
    Score,
    changes,
    clipped,
    mean,
    noisy,
    ratio,
    released,
    scaled,
    score,
    start,
)
from bench.privacy.page import Row, Setting
from federation.mend import Mender
from federation.spare import measure
from feedback.models import check_model
from learner.accountant import calibrate
from learner.base import load_base
from learner.encode import Encoded, encode_all
from learner.lora import LoraSpec
from learner.private import PrivateSpec

DELTA = 1e-6
EPSILONS = (math.inf, 8.0, 4.0, 2.0, 1.0)
SIMULATED = (1024, 4096, 16_384)  # devices, beyond the real ones
REAL = 96
RATES = (300.0, 1000.0, 3000.0, 10_000.0)
CHOOSING = 16  # devices whose noiseless mean the rate is chosen on
PLAIN = (32, 3, 2)  # devices, rounds and local steps of federation without privacy


class Bench:
    """One world, the first round's changes, and what any setting makes of them."""

    def __init__(self, fleet: Fleet, tuning: list[Encoded], draws: int) -> None:
        self.draws = draws
        self.floor = score(fleet.base, fleet.probe, None).exact
        self.first = changes(fleet, start(fleet), len(fleet.devices))  # at a rate of 1; a step is linear in its rate
        self.rate = min(RATES, key=lambda rate: self._tuned(fleet, tuning, rate))
        self.first = [scaled(one, self.rate) for one in self.first]
        self.fleet = replace(fleet, spec=replace(fleet.spec, learning_rate=self.rate))
        norms = [math.sqrt(sum(float(np.square(part).sum()) for part in one.values())) for one in self.first]
        self.bound = float(np.median(norms))  # a public stand-in for the device-level clipping bound

    def todo(self, real: int) -> Iterator[tuple[Setting, Callable[[], Row]]]:
        """Every row: its name and how it is made."""
        yield ("none", 0, math.inf), self.nothing
        yield ("public", 0, math.inf), self.public
        yield ("none", PLAIN[0], math.inf), self.plain
        for setting in settings(real):
            yield setting, partial(self.row, setting)

    def nothing(self) -> Row:
        """The base alone."""
        found = score(self.fleet.base, self.fleet.newcomers, None)
        return Row.of(("none", 0, math.inf), 0.0, 0.0, [found], [self.floor])

    def public(self) -> Row:
        """What the server's public pairs do by themselves: a round in which nobody sent anything."""
        change = {path: np.zeros_like(part) for path, part in self.first[0].items()}
        newcomers, probe = self._release(change, 0.0)
        return Row.of(("public", 0, math.inf), 0.0, 0.0, [newcomers], [probe])

    def row(self, setting: Setting) -> Row:
        """One setting, over all draws."""
        unit, devices, epsilon = setting
        noise = 0.0 if math.isinf(epsilon) else calibrate(epsilon, DELTA, sampling_rate=1.0, steps=1)
        change, deviation = self._mean(unit, devices, noise)
        found = [self._release(change, deviation) for _ in range(self.draws if noise else 1)]
        return Row.of(setting, noise, ratio(change, deviation), *zip(*found, strict=True))

    def plain(self) -> Row:
        """Federated averaging without any noise: several rounds of several local steps, as long a way in all."""
        devices, rounds, steps = PLAIN
        spec = replace(self.fleet.spec, learning_rate=self.rate / (rounds * steps))
        fleet = replace(self.fleet, spec=spec)
        weights = start(fleet)
        for _ in range(rounds):
            weights = released(fleet, weights, mean(changes(fleet, weights, devices, steps)), 0.0, self.floor)
        newcomers, probe = (
            score(self.fleet.base, items, weights) for items in (self.fleet.newcomers, self.fleet.probe)
        )
        return Row.of(("none", devices, math.inf), 0.0, math.inf, [newcomers], [probe.exact])

    def _mean(self, unit: str, devices: int, noise: float) -> tuple[Change, float]:
        """The mean change without noise, and the noise's standard deviation in each coordinate of it."""
        spec, found = self.fleet.spec, self.first[:devices]
        if unit == "device":
            return mean(clipped(found, self.bound)), noise * self.bound / devices
        own = noise * spec.clipping_norm * spec.learning_rate / spec.divisor
        return mean(found), own / math.sqrt(devices)

    def _release(self, change: Change, deviation: float) -> tuple[Score, float]:
        """How newcomers are answered, and exactness on the judging set, after one release."""
        fleet = self.fleet
        weights = released(fleet, start(fleet), noisy(change, deviation), deviation, self.floor)
        return score(fleet.base, fleet.newcomers, weights), score(fleet.base, fleet.probe, weights).exact

    def _tuned(self, fleet: Fleet, tuning: list[Encoded], rate: float) -> float:
        """Loss on the tuning log after a noiseless round at this rate."""
        change = scaled(mean(self.first[:CHOOSING]), rate)
        return score(fleet.base, tuning, released(fleet, start(fleet), change, 0.0, self.floor)).loss


def settings(real: int) -> Iterator[Setting]:
    """Every setting that is measured."""
    for epsilon in EPSILONS:
        simulated = SIMULATED[:2] if epsilon < math.inf else ()
        yield from (("correction", devices, epsilon) for devices in (CHOOSING, real, *simulated))
    for epsilon in EPSILONS[1:]:
        yield from (("device", devices, epsilon) for devices in (real, SIMULATED[0], SIMULATED[2]))


def main() -> int:
    """Run and write."""
    if sys.argv[1:2] == ["step"]:
        return step.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench.privacy", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=40, help="corrections a device")
    parser.add_argument("--draws", type=int, default=3, help="of noise, for every setting")
    arguments = parser.parse_args()
    begun = time.process_time()
    base, world = load_base(check_model(arguments.base)), data.world(arguments.folder, arguments.size, REAL)
    spec = PrivateSpec(
        clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=1.0, steps=1, divisor=float(arguments.size),
        learning_rate=1.0, rank=2, alpha=4.0, seed_a=20_261_123, layers=99, max_tokens=data.MAX_TOKENS,
    )  # fmt: skip
    newcomers, tuning, judging = (
        encode_all(base, one, max_tokens=data.MAX_TOKENS) for one in (world.newcomers, world.tuning, world.judging)
    )
    lora = LoraSpec(spec.rank, spec.alpha, spec.seed_a, freeze_a=True)
    mender = Mender(base, world.public, measure(base, world.public, lora, spec.layers))
    bench = Bench(Fleet(base, world.devices, newcomers, mender, judging, spec), tuning, arguments.draws)
    facts: dict[str, object] = {
        "corrections_a_device": arguments.size, "real_devices": len(world.devices), "draws": arguments.draws,
        "coordinates": int(sum(part.size for part in bench.first[0].values())), "delta": DELTA,
        "learning_rate": bench.rate, "newcomer_requests": len(newcomers), "judging_requests": len(judging),
        "mending_requests": len(world.public),
    }  # fmt: skip
    rows, before = page.read(arguments.out, world.name, facts)
    done = {(row.unit, row.devices, row.epsilon) for row in rows}
    for name, make in bench.todo(len(world.devices)):
        if name not in done:
            rows.append(make())
            spent = before + time.process_time() - begun
            page.write(arguments.out, world.name, {**facts, "cpu_seconds": round(spent)}, rows)
            print(rows[-1], f"{spent:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
