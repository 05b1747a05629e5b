"""Old skills come back by public pairs alone."""

import numpy as np

from federation.mend import mender
from federation.probe import probe_set
from feedback.models import check_model, embedded_model
from learner.base import load_base
from learner.export import to_gguf
from learner.lora import LoraSpec, LoraWeights, fresh

NOISE = 0.35  # of B, enough to cost the model several points


def test_mending_brings_back_points_on_pairs_it_never_saw() -> None:
    """A noisy adapter loses points on the judging pairs; mended, it has a fifth of them back or more. A stays."""
    base = load_base(check_model(embedded_model()))
    clean = fresh(LoraSpec(4, 8.0, 1, freeze_a=True), base.geometry)
    rng = np.random.default_rng(0)
    noise = {path: rng.normal(0, NOISE, b.shape).astype(np.float32) for path, b in clean.b.items()}
    noisy = LoraWeights(clean.a, noise, clean.alpha)
    mend = mender(embedded_model())
    assert mend is not None
    mended = mend(noisy)
    with probe_set(embedded_model(), 100) as probes:
        assert probes.skills is not None
        before, lost, back = (probes.skills(to_gguf(one, base.geometry, base.digest)) for one in (clean, noisy, mended))
    assert before - lost > 5
    assert back - lost > (before - lost) / 5
    assert all(np.array_equal(mended.a[path], noisy.a[path]) for path in noisy.a)
