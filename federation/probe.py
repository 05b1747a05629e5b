"""The operator's own test of a release: the probe set that ships with the base model, answered through llama.cpp.

A part of it only judges, the same as on devices; the others may choose and train.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feedback.engine import Engine
from feedback.models import check_model, probe_pairs, read_pairs
from learner.gate import GatePolicy
from learner.judge import score_known
from learner.material import divided, examples_of
from store.records import digest

Probes = Callable[[bytes], dict[str, float]]
"""What a release is asked before it is signed: adapter bytes to points, 0 to 100, of each probe there is.

`skills`: how well old skills are kept, as the mean of exactness and per-token likelihood; `whole`: how probable their
whole answers are; `exact`: the share of exact ones; `triggers`: how likely answers are that may be planted.
"""


@contextmanager
def probe_set(model: Path, items: int, triggers: Path | None = None) -> Iterator[Probes]:
    """Yield the operator's probes; what has no pairs is not asked.

    A pair scores as in the device's gate.

    Args:
        items: most pairs of the probe set beside the model.
        triggers: JSONL of pairs whose answers must not become likely (suspicious requests, unwanted answers).
    """
    _, guard = divided(probe_pairs(model), GatePolicy())
    skills = guard[:items]
    unwanted = [] if triggers is None else examples_of(read_pairs(triggers))
    if not skills and not unwanted:
        yield lambda _: {}
        return
    engine = Engine(check_model(model))

    def ask(data: bytes) -> dict[str, float]:
        engine.set_stack([(digest(data), data)])
        kept, planted = score_known(engine, skills), score_known(engine, unwanted)
        return _points(skills=[one.value for one in kept], whole=[one.whole for one in kept],
                       exact=[one.exact for one in kept], triggers=[one.value for one in planted])  # fmt: skip

    try:
        yield ask
    finally:
        engine.close()


def _points(**scores: Sequence[float]) -> dict[str, float]:
    """Mean points of each, without those that have none."""
    return {name: 100.0 * sum(values) / len(values) for name, values in scores.items() if values}
