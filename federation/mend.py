"""Keep the old skills that a round would cost, with public examples alone.

Before: the round's change is damped where old skills are sensitive (`federation/spare.py`). After: what it still cost
is trained back. What the devices sent is differentially private already, and both read nothing else but the operator's
public probe pairs, so they cost no privacy (post-processing). The pairs that judge a release are never looked at. Only
the B factors move: A stays the public one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.spare import Array, Sensitivity, measure
from federation.spec import RoundSpec
from feedback.models import check_model, probe_pairs
from learner.base import Base, load_base
from learner.gate import GatePolicy
from learner.lora import LoraSpec, LoraWeights
from learner.material import divided
from learner.recipe import Recipe
from learner.train import train
from store.records import Example

STEPS = 40
RECIPE = Recipe(
    lr=3e-3, min_steps=STEPS, max_steps=STEPS, batch=16, replay_share=0.0, changed_weight=1.0, freeze_a=True
)


@dataclass(frozen=True, slots=True)
class Mender:
    """What keeps old skills: the base, public pairs of it, and how sensitive they are."""

    base: Base
    public: Sequence[Example]
    sensitivity: Sensitivity

    def spare(self, change: Mapping[str, Array]) -> dict[str, Array]:
        """Return a round's change with the directions damped that old skills depend on."""
        return self.sensitivity.spare(change)

    def mend(self, weights: LoraWeights) -> LoraWeights:
        """Return a shared adapter with old skills trained back."""
        return train(self.base, self.public, (), RECIPE, start=weights)


def mender(model: Path, spec: RoundSpec) -> Mender | None:
    """Return what keeps the model's old skills in rounds of `spec`, or None where it has no public pairs."""
    public, _ = divided(probe_pairs(model), GatePolicy())
    if not public:
        return None
    base = load_base(check_model(model))
    lora = LoraSpec(spec.rank, spec.alpha, spec.seed_a, freeze_a=True)
    return Mender(base, public, measure(base, public, lora, spec.layers))
