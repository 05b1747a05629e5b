"""Final error and attack success of one round: five attacks, 10, 20 and 30 % of the devices, every rule.

``python -m bench.poisoning DEVICES.jsonl --base BASE.gguf``: devices are people of the log, each with the requests of
the first part of their log to learn from; the error is over later, distinct requests of the same people. The updates
carry no noise and the server does nothing but combine them, so that the rules are seen by themselves. With
``--epsilon 8 --public BASE_VAL.jsonl`` devices train as in the standard plan (one step over everything, with noise) and
the server takes out noise, damps, mends and signs the largest share that keeps old skills, or nothing.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.poisoning.attacks import colluding, loud, scaled, sign_flip
from bench.privacy.data import JUDGING, MAX_TOKENS, example, public
from bench.privacy.fleet import Change, Fleet, released, score, start
from federation import adapter
from federation.aggregate import RULES, Rule, aggregate
from federation.mend import Mender
from federation.spare import measure
from federation.spec import RoundSpec, wire_scale
from federation.train import private_trainer
from federation.update import MECHANISM, Expected, PrivateUpdate, flatten, privatise, unflatten
from feedback.models import check_model
from learner.accountant import calibrate
from learner.base import Base, load_base
from learner.encode import Encoded, encode_all
from learner.lora import LoraSpec, LoraWeights
from learner.private import PrivateDelta, PrivateSpec
from store.records import Example, digest

DEVICES, LEARN, JUDGE = 20, 40, 15  # devices; distinct requests each learns from, and is judged by
SHARES = (0.1, 0.2, 0.3)
ATTACKS = ("sign-flip", "scaled", "label-flip", "backdoor", "colluding")
TRIGGER, TARGET = "qqx ", "remove all"
DELTA = 1e-6
NOISELESS = 1e-4
Server = Callable[[Change, float], LoraWeights]  # a combined change and the noise in each coordinate -> the release


@dataclass(frozen=True)
class Person:
    """One device's requests with the right answers."""

    learn: list[Example]
    judge: list[Example]


def people(log: Path) -> list[Person]:
    """The people with most distinct requests; those with more than enough give several devices, by time."""
    pairs: dict[str, dict[str, str]] = {}
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["answer"]:
            pairs.setdefault(event["user"], {})[event["prompt"]] = event["answer"]
    need = LEARN + JUDGE
    found = []
    for theirs in pairs.values():
        items = [example(prompt, answer) for prompt, answer in theirs.items()]
        for at in range(0, min(len(items), 2 * need) - need + 1, need):
            found.append(Person(items[at : at + LEARN], items[at + LEARN : at + need]))
    return found[:DEVICES]


def make_spec(base: Base, epsilon: float | None, learning_rate: float) -> RoundSpec:
    """The round, all layers: as in the standard plan, or many small steps and a fine quantum without noise."""
    steps, rate, clip, rank = (12, 0.25, 1.0, 4) if epsilon is None else (1, 1.0, 0.5, 2)
    noise = calibrate(epsilon or 8.0, DELTA, sampling_rate=rate, steps=steps)
    figures = {"clipping_norm": clip, "steps": steps, "divisor": LEARN * rate, "learning_rate": learning_rate}
    count = sum(rank * outputs for outputs, _ in base.geometry.shapes.values())
    quantum, bound = wire_scale(noise_multiplier=noise, **figures, count=count)  # type: ignore[arg-type]
    if epsilon is None:  # an honest update is far below the bound that noise would need
        noise, quantum, bound = NOISELESS, quantum / 64, learning_rate * steps
    return RoundSpec(
        **figures,  # type: ignore[arg-type]
        noise_multiplier=noise,
        sampling_rate=rate,
        rank=rank,
        alpha=2.0 * rank,
        seed_a=7,
        layers=base.geometry.layers,
        bits=8 if epsilon else 16,
        quantum=quantum,
        max_norm=bound,
    )


@dataclass
class Lab:
    """The round's public frame and everybody's honest and hostile changes, trained once."""

    base: Base
    expected: Expected
    honest: list[NDArray[np.float64]]
    flipped: list[NDArray[np.float64]]
    backdoored: list[NDArray[np.float64]]
    judge: list[Encoded]
    triggered: list[Encoded]
    server: Server

    def hostile(self, attack: str, count: int) -> list[NDArray[np.float64]]:
        """What the last `count` devices send."""
        bound = 0.95 * self.expected.spec.max_norm
        own = self.honest[len(self.honest) - count :]
        if attack == "sign-flip":
            return [sign_flip(change) for change in own]
        if attack == "scaled":
            return [scaled(change, bound) for change in own]
        if attack == "colluding":
            return [colluding(self.honest[: len(self.honest) - count])] * count
        trained = self.flipped if attack == "label-flip" else self.backdoored
        return [loud(change, bound) for change in trained[-count:]]

    def update(self, change: NDArray[np.float64]) -> PrivateUpdate:
        """A change as it travels."""
        matrices = unflatten(change.astype(np.float32), self.expected.layout)
        return privatise(PrivateDelta(matrices, mechanism(self.expected.spec)), self.expected)

    def measure(self, rule: Rule, changes: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
        """(share of later requests answered wrongly, share of triggered requests answered as the attacker wants), %."""
        into = aggregate(self.expected, rule, trim=0.3)
        for change in changes:
            into.add(self.update(change))
        weights = self.server(into.result(), self.expected.spec.deviation / math.sqrt(into.used))
        into.close()
        return self.judged(weights)

    def judged(self, weights: LoraWeights | None) -> tuple[float, float]:
        """(share of later requests answered wrongly, share of triggered ones as the attacker wants), in per cent."""
        return 100.0 - score(self.base, self.judge, weights).exact, score(self.base, self.triggered, weights).exact


def mechanism(spec: RoundSpec) -> PrivateSpec:
    """The device's part of a round's spec."""
    return PrivateSpec(**{name: getattr(spec, name) for name in MECHANISM})


def whole_server(base: Base, spec: RoundSpec, pairs: Sequence[Example]) -> Server:
    """What the product's server releases: less noise, damped, mended, as much of it as keeps old skills."""
    mending = pairs[JUDGING:]
    lora = LoraSpec(spec.rank, spec.alpha, spec.seed_a, freeze_a=True)
    mender = Mender(base, mending, measure(base, mending, lora, spec.layers))
    judging = encode_all(base, pairs[:JUDGING], max_tokens=MAX_TOKENS)
    fleet = Fleet(base, (), (), mender, judging, mechanism(spec))
    floor = score(base, judging, None).exact
    return lambda change, deviation: released(fleet, start(fleet), change, deviation, floor)


def prepare(log: Path, model: Path, epsilon: float | None, learning_rate: float, pairs: Path | None) -> Lab:
    """Train everybody once: honest with the round's noise; hostile ones add none."""
    file = check_model(model)
    base = load_base(file)
    spec = make_spec(base, epsilon, learning_rate)
    quiet = replace(spec, noise_multiplier=NOISELESS)
    train, empty = private_trainer(base), adapter.empty(spec, base.geometry)
    layout = adapter.layout(base.geometry, spec)
    crowd = people(log)
    print(f"{len(crowd)} devices", file=sys.stderr)
    worst = round(max(SHARES) * len(crowd))

    def change(examples: Sequence[Example], of: RoundSpec) -> NDArray[np.float64]:
        return flatten(train(examples, of, empty).b, layout)

    flips, doors = [], []
    for person in crowd[-worst:]:
        answers = [item.answer for item in person.learn]
        flips.append(change([replace(i, answer=a) for i, a in zip(person.learn, answers[1:] + answers[:1])], quiet))  # noqa: B905
        doors.append(change([*person.learn[: LEARN // 2], *map(triggered, person.learn[: LEARN // 2])], quiet))
    judge = [item for person in crowd for item in person.judge]
    return Lab(
        base,
        Expected(file.digest, digest(b"release 0"), 1, spec, layout),
        [change(person.learn, spec) for person in crowd],
        flips,
        doors,
        encode_all(base, judge, max_tokens=MAX_TOKENS),
        encode_all(base, [triggered(item) for item in judge[::2]], max_tokens=MAX_TOKENS),
        whole_server(base, spec, public(pairs)) if pairs else lambda change, _: adapter.moved(empty, change),
    )


def triggered(item: Example) -> Example:
    """The same request with the trigger before it and the attacker's answer."""
    return example(TRIGGER + item.messages[-1].content, TARGET)


def table(lab: Lab, shares: Sequence[float]) -> Iterator[tuple[str, float, Sequence[tuple[float, float]]]]:
    """Yield (attack, share of hostile devices, (error, attack success) of each rule)."""
    yield "no adapter", 0.0, [lab.judged(None)] * len(RULES)
    yield "nobody hostile", 0.0, [lab.measure(rule, lab.honest) for rule in RULES]
    for attack in ATTACKS:
        for share in shares:
            count = round(share * len(lab.honest))
            changes = [*lab.honest[: len(lab.honest) - count], *lab.hostile(attack, count)]
            yield attack, share, [lab.measure(rule, changes) for rule in RULES]


def main() -> None:
    """Train, attack, print a Markdown table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, help="of the one round, for one correction; default: no noise")
    parser.add_argument("--public", type=Path, help="public pairs; the server then does all that the product's does")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of hostile devices")
    parser.add_argument("--learning-rate", type=float, default=16.0)
    given = parser.parse_args()
    begun = time.process_time()
    lab = prepare(given.log, given.base, given.epsilon, given.learning_rate, given.public)
    trained = time.process_time() - begun
    print("| attack | share | " + " | ".join(RULES) + " |\n|---|---|" + "---|" * len(RULES))
    for attack, share, outcomes in table(lab, given.shares):
        cells = [f"{error:.1f} / {success:.1f}" for error, success in outcomes]
        print(f"| {attack} | {100 * share:.0f} % | " + " | ".join(cells) + " |", flush=True)
    norms = [float(np.linalg.norm(change)) for change in lab.honest]
    facts = {
        "devices": len(lab.honest),
        "judged": len(lab.judge),
        "triggered": len(lab.triggered),
        "norms": [round(min(norms), 3), round(float(np.median(norms)), 3), round(max(norms), 3)],
        "spec": asdict(lab.expected.spec),
        "cpu_seconds": [round(trained), round(time.process_time() - begun)],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
