"""Put back the old skills a round has cost, with public examples alone.

What the devices sent is differentially private already; training on the operator's public probe pairs afterwards reads
nothing else, so it costs no privacy (post-processing). The pairs that judge a release are never trained on. Only the B
factors move: A stays the public one.
"""

from collections.abc import Callable
from pathlib import Path

from federation.probe import split
from feedback.models import check_model, probe_pairs
from learner.base import load_base
from learner.lora import LoraWeights
from learner.recipe import Recipe
from learner.train import train

STEPS = 40
RECIPE = Recipe(
    lr=3e-3, min_steps=STEPS, max_steps=STEPS, batch=16, replay_share=0.0, changed_weight=1.0, freeze_a=True
)
Mender = Callable[[LoraWeights], LoraWeights]


def mender(model: Path) -> Mender | None:
    """Return a function from a shared adapter to a mended one, or None where the model has no public pairs."""
    public, _ = split(probe_pairs(model))
    if not public:
        return None
    base = load_base(check_model(model))
    return lambda weights: train(base, public, (), RECIPE, start=weights)
