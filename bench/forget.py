"""What forgetting leaves and what it costs: `python -m bench.forget [--seed 1] [--slice newest|older]...`.

An owner of the demo teaches twice: habits, and sayings that follow no rule (a code for a thing), which can only be
memorised. After each time an adapter continues the one before, as learning runs do. Then the sayings of one slice are
forgotten by `learner.forget.forget`, the product's own path. Membership: the area under the curve between them and
sayings of the same kind that were never told, calibrated by a twin trained on the rest, before and after: what an
adapter makes of a saying it never saw depends on those it did. Cost: steps and processor time of the rebuild against
training everything that is left from nothing.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cli.demo.owners import OWNERS, requests
from feedback.engine import Engine
from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.cycle import starting_point
from learner.export import to_gguf
from learner.exposure import Scores, auc, likelihoods
from learner.forget import Tools, forget, plan
from learner.judge import Stack
from learner.material import gather, served
from learner.policy import LearnPolicy
from learner.teach import held, teach
from store.memory import MemoryStore
from store.records import Adapter, Correction, Example, Interaction, Message

SLICES = ("older", "newest")
HABITS, SAYINGS = 8, 24
THINGS = ("safe", "locker", "gate", "garage", "shed", "bike lock", "alarm panel", "cellar door", "mail box", "cabinet")
TWIN = 1000  # added to the seed of the twin's training
POLICY = LearnPolicy()
Probe = list[tuple[str, str]]


def main() -> int:
    """Teach, forget, measure; 1 when somebody could still tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.forget", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slice", action="append", choices=SLICES, dest="slices")
    options = parser.parse_args()
    model = check_model(embedded_model())
    base, probe = load_base(model), probe_pairs(model.path)
    rows = []
    with Engine(model, context=512) as engine:
        for name in options.slices or SLICES[::-1]:
            rows.append(_row(engine, base, probe, name, options.seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps(rows, indent=1))
    return 0 if all(one["after"][1] <= 0.5 <= one["after"][2] and one["before"][0] > 0.6 for one in rows) else 1


def _row(engine: Engine, base: Base, probe: Probe, name: str, seed: int) -> dict[str, Any]:
    """Teach the slices, forget the sayings of one."""
    store, steps = MemoryStore(), 0
    for number in range(len(SLICES)):
        said = _slice(number, seed)
        _teach(store, engine, said, number)
        steps += POLICY.recipe.all_steps(len(said))
        _learn(store, engine, base, probe)
    gone = [
        one.id for one in store.all(Interaction)
        if one.messages[0].content.startswith("the code") and int(one.time // 1000) == SLICES.index(name)
    ]  # fmt: skip
    told = store.examples_of(gone)
    never = [_example(*pair) for pair in _slice(len(SLICES), seed) if pair[0].startswith("the code")]
    old = [likelihoods(engine, one, _stack(store, engine)) for one in (told, never)]
    began = time.process_time()
    done = forget(store, plan(store, gone), Tools(engine, base, probe, POLICY), measure=False)
    spent = time.process_time() - began
    new = [likelihoods(engine, one, _stack(store, engine)) for one in (told, never)]
    began = time.process_time()
    nothing = MemoryStore()
    nothing.add_all([*store.all(Interaction), *store.all(Correction)])
    _learn(nothing, engine, base, probe, seed=TWIN)
    twin = [likelihoods(engine, one, _stack(nothing, engine)) for one in (told, never)]
    return {
        "slice": name, "forgotten": len(gone), "never told": len(never),
        "before": _membership(old, twin), "after": _membership(new, twin),
        "adapters destroyed": len(done.destroyed), "learned again": done.rebuilt.corrections,
        "served again": done.rebuilt.adapter is not None, "steps": done.rebuilt.steps, "cpu": round(spent, 1),
        "steps of the whole history": steps, "steps from nothing": POLICY.recipe.all_steps(len(store.all(Correction))),
        "cpu from nothing": round(time.process_time() - began, 1),
    }  # fmt: skip


def _stack(store: MemoryStore, engine: Engine) -> Stack:
    """What serves."""
    return served(store, engine).stack


def _membership(found: Sequence[Scores], twin: Sequence[Scores]) -> tuple[float, float, float]:
    """The area under the curve between told and never told, with its 95 % bootstrap interval."""
    members, others = (one - other for one, other in zip(found, twin, strict=True))
    rng = np.random.default_rng(0)
    drawn = [auc(rng.choice(members, len(members)), rng.choice(others, len(others))) for _ in range(2000)]
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return round(auc(members, others), 3), round(float(lower), 3), round(float(upper), 3)


def _example(prompt: str, answer: str) -> Example:
    return Example(messages=(Message("user", prompt),), answer=answer)


def _slice(number: int, seed: int) -> list[tuple[str, str]]:
    """What is taught in one go: habits, then sayings."""
    said = list({one.prompt: one for one in requests(OWNERS[seed % 8], 900, seed) if one.habit}.values())
    habits = [(one.prompt, one.answer) for one in said[number * HABITS : (number + 1) * HABITS]]
    draw = random.Random(seed)  # deals all slices at once, so that told and never told differ in nothing but that
    things = draw.sample([f"{thing} {one}" for thing in THINGS for one in range(10)], (len(SLICES) + 1) * SAYINGS)
    sayings = [(f"the code of {thing}", f'note.add(text="{draw.randrange(1000, 10000)}")') for thing in things]
    return habits + sayings[number * SAYINGS : (number + 1) * SAYINGS]


def _teach(store: MemoryStore, engine: Engine, said: Sequence[tuple[str, str]], number: int) -> None:
    """Log and correct."""
    for place, (prompt, wanted) in enumerate(said):
        asked = Interaction(
            messages=(Message("user", prompt),), answer="music.stop()", model=engine.model.digest,
            time=1000.0 * number + place,
        )  # fmt: skip
        store.add_all([asked, Correction(interaction=asked.id, corrected=wanted, time=asked.time)])


def _learn(store: MemoryStore, engine: Engine, base: Base, probe: Probe, seed: int = 0) -> None:
    """Continue the serving adapter on what is new, as a learning run trains, past its gate."""
    now = served(store, engine)
    material = gather(store, now.learned, probe, POLICY.gate)
    policy = replace(POLICY, recipe=replace(POLICY.recipe, seed=POLICY.recipe.seed + seed))
    start, _ = starting_point(base, now, policy.recipe)
    weights = teach(base, material, policy, start, kept=held(base, material, policy)).weights
    name = store.put_artefact(to_gguf(weights, base.geometry, base.digest))
    examples = tuple(sorted(one.id for one in material.corrections))
    parent = now.personal[0] if now.personal else None
    store.add(
        Adapter(slot="personal", digest=name, base=base.digest, parent=parent, examples=examples, time=time.time())
    )
    store.activate("personal", name, "bench")


if __name__ == "__main__":
    sys.exit(main())
