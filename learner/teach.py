"""Make an adapter of an owner's material: learn, hold what was learned to the base, settle.

Learning moves A and B. Then A is merged towards the base where the base's own skills are (`regmean`): that takes back
most of what would be forgotten, and a part of what was learned. Behind this A, B alone learns once more: what was lost
comes back by ways that the base's own requests hardly take. LoRA-Null (Tang et al. 2025, arXiv 2503.02659) fixes such
an A before anything is learned; here it is learned first.
"""

from dataclasses import dataclass

import numpy as np

from learner.base import Base
from learner.journal import Journal, Steps
from learner.lora import LoraWeights
from learner.material import Material
from learner.objectives import Reference
from learner.policy import LearnPolicy, Progress
from learner.recipe import Recipe
from learner.regmean import Moments, moments, restrained
from learner.train import train
from store.errors import NotEligible
from store.records import Example

OWN_COPIES = 4  # most times one of the owner's own answers is in what is replayed


@dataclass(frozen=True, slots=True)
class Taught:
    """An adapter, and what says where to hold it: moments of what it learned from, and of the base's own skills."""

    weights: LoraWeights
    own: Moments
    kept: Moments | None

    def held(self, restraint: float) -> LoraWeights:
        """Return it held to the base; see `regmean`."""
        return restrained(self.weights, self.own, self.kept, restraint)


def teach(
    base: Base, material: Material, policy: LearnPolicy, start: LoraWeights, *, under: LoraWeights | None = None,
    kept: Moments | None = None, reference: Reference | None = None, progress: Progress | None = None,
    journal: Journal | None = None, phase: str = "", number: int = 0,
) -> Taught:  # fmt: skip
    """Learn the fresh corrections of `material` with replay of the rest.

    Args:
        start: the adapter to continue.
        under: the shared adapter below.
        kept: what `held` gives.
        progress: told `phase` and how far it is.
        journal: keeps how far both parts came, under `phase` and `number`.
    Raises:
        NotEligible: no correction is short enough to learn from.
    """
    journal, reference, recipe = journal or Journal(), reference or Reference(), policy.recipe
    keep, own = replayed(material, policy), asked(base, material, policy)

    def part(name: str, recipe: Recipe, start: LoraWeights) -> LoraWeights:
        def tell(step: int, steps: int, loss: float) -> None:
            if progress is not None:
                progress(name, step, steps, loss)

        def work(steps: Steps) -> LoraWeights:
            return train(
                base, material.fresh, keep, recipe, start=start, under=under, reference=reference, progress=tell,
                steps=steps, recompute=policy.flags.recompute,
            )  # fmt: skip

        return journal.trained(f"{name} {number}", work)

    learned = Taught(part(phase, recipe, start), own, kept)
    return Taught(part(f"{phase}, settling", recipe.settled, learned.held(recipe.settle_restraint)), own, kept)


def replayed(material: Material, policy: LearnPolicy) -> list[Example]:
    """Return what is replayed in one run: the owner's newest answers that were right, and twice as many probe pairs.

    Where the owner has said little, the owner's are there several times, so that they are not lost among the others.
    """
    third = policy.replay_size // 3
    own = [*material.earlier[-(third // 2) :], *material.approved[-(third // 2) :]]
    copies = min(OWN_COPIES, third // len(own)) if own else 0
    room = min(2 * third, len(material.probe))
    chosen = np.random.default_rng(policy.recipe.seed).permutation(len(material.probe))[:room]
    return [*own * copies, *(material.probe[index] for index in chosen)]


def held(base: Base, material: Material, policy: LearnPolicy) -> Moments | None:
    """What the base's own skills send through it; None without any."""
    return moments(base, material.probe[: policy.held_size], max_tokens=policy.recipe.max_tokens)


def asked(base: Base, material: Material, policy: LearnPolicy) -> Moments:
    """What the owner's newest corrections send through the base.

    Raises:
        NotEligible: none fits.
    """
    found = moments(base, material.corrections[-policy.held_size :], max_tokens=policy.recipe.max_tokens)
    if found is None:
        raise NotEligible("No correction is short enough to learn from.", code="nothing_to_learn")
    return found
