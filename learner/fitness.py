"""May a model file be taught? Whether training and serving read one and the same model out of it.

Loads the file both ways and compares tokens of random text, and logits of the base and of a random adapter under
llama.cpp's own rounding (`parity`). What passes is served as it was trained, whatever its architecture is called.
"""

import random
import time
from dataclasses import dataclass, replace

import numpy as np

from feedback.engine import Engine
from feedback.models import ModelFile
from feedback.trace import Trace
from learner.base import Base, load_base, tokenize
from learner.lora import LoraSpec, LoraWeights, fresh
from learner.parity import Parity, check

STRINGS = 1000
LIMIT = 0.05  # largest logit difference
_CONTEXT = 512
_LETTERS = (range(32, 127), range(9, 127), range(32, 0x2FFF))  # plain text, with controls, other scripts


@dataclass(frozen=True, slots=True)
class Fitness:
    """What the comparison found."""

    plain: Parity  # of an adapter, as trained against as served: mostly rounding of a quantised file
    base: Parity  # under the same rounding
    adapted: Parity
    strings: int  # random texts compared
    differ: int  # of them cut into other tokens
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether what is trained is what is served."""
        return self.differ == 0 and max(self.base.max_abs_logit_diff, self.adapted.max_abs_logit_diff) <= LIMIT


def examine(model: ModelFile, *, strings: int = STRINGS) -> Fitness:
    """Compare training and serving on `model`.

    Raises:
        IntegrityError: one of the two cannot read it.
        UsageError: it has no chat template or nothing that can be adapted.
    """
    started = time.monotonic()
    base, trace = load_base(model), Trace()
    adapter = random_adapter(base)
    with Engine(model, context=_CONTEXT, trace=trace) as engine:
        plain, adapted = check(engine, base, adapter), check(engine, base, adapter, trace=trace)
        bare = check(engine, base, None, trace=trace)
    with Engine(model, context=_CONTEXT) as engine:
        differ = sum(engine.tokenize(text) != tokenize(base, text, control=True) for text in random_texts(strings))
    return Fitness(plain, bare, adapted, strings, differ, time.monotonic() - started)


def random_adapter(base: Base, *, size: float = 0.02, seed: int = 0) -> LoraWeights:
    """Return an adapter that changes something: A as it starts, B normal with deviation `size`."""
    start, rng = fresh(LoraSpec(seed=seed), base.geometry), np.random.default_rng(seed)
    return replace(start, b={path: (size * rng.standard_normal(b.shape)).astype("f4") for path, b in start.b.items()})


def random_texts(count: int, *, seed: int = 1) -> list[str]:
    """Return texts of up to 40 characters, the same for the same seed."""
    rng = random.Random(seed)
    return ["".join(chr(rng.choice(rng.choice(_LETTERS))) for _ in range(rng.randint(0, 40))) for _ in range(count)]
