"""What forgetting leaves and what it costs: `python -m bench.forget [--seed 1] [--slice newest|middle|oldest]...`.

An owner of the demo teaches three times: habits, and sayings of which each is told once and follows no rule (a code for
a thing), which is what can only be memorised. After each time an adapter continues the one before, as learning runs do.
Then the sayings of one slice are forgotten by `learner.forget.forget`, the product's own path: exposure before and
after against a twin that never saw them, and the cost of the rebuild against training all slices from nothing.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from cli.demo.owners import OWNERS, requests
from feedback.engine import Engine
from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.export import from_gguf, to_gguf
from learner.forget import Tools, forget, plan
from learner.policy import LearnPolicy
from learner.train import train
from store.memory import MemoryStore
from store.records import Adapter, Correction, Example, Interaction, Message

SLICES = ("oldest", "middle", "newest")
HABITS, SAYINGS, KEPT = 15, 30, 100
THINGS = ("safe", "locker", "gate", "garage", "shed", "bike lock", "alarm panel", "cellar door", "mail box", "cabinet")
POLICY = LearnPolicy(slice_size=40)
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
    return 0 if all(one["after"]["lower"] <= 0.5 <= one["after"]["upper"] for one in rows) else 1


def _row(engine: Engine, base: Base, probe: Probe, name: str, seed: int) -> dict[str, object]:
    """Teach three slices, forget the sayings of one."""
    store = MemoryStore()
    steps, began = 0, time.process_time()
    for number in range(len(SLICES)):
        said = _slice(number, seed)
        _teach(store, engine, said, number)
        steps += POLICY.recipe.steps(len(said))
        _learn(store, base, probe)
    nothing = time.process_time() - began
    gone = [
        one.id for one in store.all(Interaction)
        if one.messages[0].content.startswith("the code") and int(one.time // 1000) == SLICES.index(name)
    ]  # fmt: skip
    done = forget(store, plan(store, gone), Tools(engine, base, probe, POLICY))
    assert done.before is not None
    assert done.after is not None
    return {
        "slice": name, "forgotten": len(gone), "destroyed adapters": len(done.destroyed),
        "before": asdict(done.before), "after": asdict(done.after),
        "learned again": done.rebuilt.corrections, "steps": done.rebuilt.steps, "steps from nothing": steps,
        "served again": done.rebuilt.adapter is not None, "cpu from nothing": round(nothing, 1),
        "cpu in all, with twin and scores": round(time.process_time() - began - nothing, 1),
    }  # fmt: skip


def _slice(number: int, seed: int) -> list[tuple[str, str]]:
    """What is taught in one go: habits, then sayings."""
    said = list({one.prompt: one for one in requests(OWNERS[seed % 8], 900, seed) if one.habit}.values())
    habits = [(one.prompt, one.answer) for one in said[number * HABITS : (number + 1) * HABITS]]
    draw = random.Random(f"{seed}:{number}")
    sayings = [
        (f"the code of {THINGS[place % len(THINGS)]} {number}{place // len(THINGS)}",
         f'note.add(text="{draw.randrange(1000, 10000)}")')
        for place in range(SAYINGS)
    ]  # fmt: skip
    return habits + sayings


def _teach(store: MemoryStore, engine: Engine, said: Sequence[tuple[str, str]], number: int) -> None:
    """Log and correct."""
    for place, (prompt, wanted) in enumerate(said):
        asked = Interaction(
            messages=(Message("user", prompt),), answer="music.stop()", model=engine.model.digest,
            time=1000.0 * number + place,
        )  # fmt: skip
        store.add_all([asked, Correction(interaction=asked.id, corrected=wanted, time=asked.time)])


def _learn(store: MemoryStore, base: Base, probe: Probe) -> None:
    """Continue the serving adapter on what is new."""
    parent = store.active("personal")
    record = store.last(Adapter, digest=parent) if parent else None
    known = set(record.examples) if record else set()
    fresh = [one for one in store.examples() if one.id not in known]
    keep = [Example(messages=(Message("user", prompt),), answer=answer) for prompt, answer in probe[:KEPT]]
    start = from_gguf(store.artefact(parent), base.geometry, base.digest) if parent else None
    weights = train(base, fresh, keep, POLICY.recipe, start=start)
    name = store.put_artefact(to_gguf(weights, base.geometry, base.digest))
    examples = tuple(sorted(known | {one.id for one in fresh}))
    now = time.time()
    store.add(Adapter(slot="personal", digest=name, base=base.digest, parent=parent, examples=examples, time=now))
    store.activate("personal", name, "bench")


if __name__ == "__main__":
    sys.exit(main())
