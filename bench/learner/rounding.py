"""What rounding to 8 bits costs: ``python -m bench.learner.rounding [GGUF ...] [--seeds 0 1]``.

First the gradients of one step, all together against PEFT's in float32: of a random model of 135 million weights, of
the embedded model and of every GGUF named, forced to 8 bits where "fast" would not use them. Then what two of the
demo's owners learn from 100 corrections on the embedded model: exact answers to requests that they have not said, and
whole answers on the base's pairs that were neither replayed nor judge, at two restraints.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.learner import shapes
from cli.demo.owners import OWNERS, Owner, requests
from feedback.engine import Engine
from feedback.models import ModelFile, check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.encode import Encoded, encode_all
from learner.export import to_gguf
from learner.fitness import random_adapter
from learner.judge import ItemScore, score_known
from learner.lora import LoraSpec, attached, fresh
from learner.material import Material, examples_of
from learner.policy import LearnPolicy
from learner.recipe import Hold
from learner.teach import held, teach
from store.records import Example, Message, digest

FORMS: tuple[Hold, Hold] = ("compact", "int8")
CORRECTIONS, UNSEEN, KEPT = 100, 200, 700
RESTRAINTS = (0.2, 0.8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    _gradients("random, 135M", {form: shapes.smol(torch.bfloat16, form) for form in FORMS},
               shapes.smol(torch.float32, "compact"))  # fmt: skip
    for path in (embedded_model(), *options.models):
        model = check_model(path)
        exact = load_base(model)
        items = encode_all(exact, examples_of(probe_pairs(path)[:12]), max_tokens=512)
        _gradients(path.name, {form: (load_base(model, hold=form), items) for form in FORMS}, (exact, items))
    for owner in OWNERS[:2]:
        _learning(owner, check_model(embedded_model()), options.seeds)


def _gradients(name: str, rounded: dict[Hold, tuple[Base, list[Encoded]]], exact: tuple[Base, list[Encoded]]) -> None:
    """Print relative errors and cosines; PEFT's own in bfloat16 last."""
    wanted = _gradient(*exact, lean=False)
    found = {f"ours, {form}": _gradient(*held_so, lean=True) for form, held_so in rounded.items()}
    exact[0].model.to(torch.bfloat16)
    found["PEFT, bfloat16"] = _gradient(*exact, lean=False)
    for way, one in found.items():
        off, along = (one - wanted).norm() / wanted.norm(), torch.cosine_similarity(one, wanted, dim=0)
        print(f"{name}: {way:16} gradient off by {off:.3f}, cosine {along:.4f}", flush=True)


def _gradient(base: Base, items: list[Encoded], *, lean: bool) -> torch.Tensor:
    """All gradients of one step in a row, float64."""
    with attached(base, LoraSpec(), start=random_adapter(base)) as held_:
        if lean:
            held_.hasten(base.fast_dtype)
        answers = held_.answers(items)
        (answers.log_probs()[:, 0] * answers.weights).sum().backward()  # type: ignore[no-untyped-call]
        return torch.cat([one.grad.flatten().double() for one in held_.parameters() if one.grad is not None])


def _learning(owner: Owner, model: ModelFile, seeds: Sequence[int]) -> None:
    """Print what one owner gains and loses, in points."""
    said = {one.prompt: one.answer for one in requests(owner, 3 * CORRECTIONS, 0)}
    later = {one.prompt: one.answer for one in requests(owner, 900, 5) if one.prompt not in said}
    unseen, pairs = examples_of(list(later.items())[:UNSEEN]), examples_of(probe_pairs(model.path))
    fresh_ = tuple(Example(messages=(Message("user", one),), answer=two, rejected="")
                   for one, two in list(said.items())[:CORRECTIONS])  # fmt: skip
    cut = LearnPolicy().gate.guard
    material = Material(fresh=fresh_, earlier=(), approved=(), probe=tuple(pairs[cut:-KEPT]), guard=tuple(pairs[:cut]))
    with Engine(model) as engine:
        before = score_known(engine, [*unseen, *pairs[-KEPT:]])
        for form in FORMS:
            base = load_base(model, hold=form)
            for seed in seeds:
                policy = replace(LearnPolicy(), recipe=replace(LearnPolicy().recipe, seed=seed))
                start, kept = fresh(LoraSpec(), base.geometry), held(base, material, policy)
                taught = teach(base, material, policy, start, kept=kept)
                for restraint in RESTRAINTS:
                    data = to_gguf(taught.held(restraint), base.geometry, base.digest)
                    engine.set_stack([(digest(data), data)])
                    after = score_known(engine, [*unseen, *pairs[-KEPT:]])
                    _say(f"{owner.name}, seed {seed}, restraint {restraint}, {form:8}", before, after, len(unseen))


def _say(what: str, before: Sequence[ItemScore], after: Sequence[ItemScore], unseen: int) -> None:
    """Print one line."""
    both = list(zip(before, after, strict=True))
    gained = 100 * np.mean([two.exact - one.exact for one, two in both[:unseen]])
    kept = 100 * np.mean([two.whole - one.whole for one, two in both[unseen:]])
    print(f"{what} {unseen} unseen requests {gained:+.1f} exact, old skills {kept:+.2f} whole", flush=True)


if __name__ == "__main__":
    main()
