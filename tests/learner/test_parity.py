"""What is trained is what is served."""

import random

from feedback.engine import Engine
from feedback.models import ModelFile
from learner.base import Base, load_base, render, tokenize
from learner.parity import check
from store.records import Message
from tests.learner.conftest import random_adapter


def test_the_quantised_base_agrees_with_and_without_an_adapter(base: Base, engine: Engine) -> None:
    """Largest logit difference on the shipped Q8_0 file: at most 0.05."""
    assert check(engine, base, None).max_abs_logit_diff <= 0.05
    adapted = check(engine, base, random_adapter(base))
    assert adapted.max_abs_logit_diff <= 0.05
    assert adapted.kl <= 1e-3


def test_the_float32_base_agrees_closely(full_precision: ModelFile) -> None:
    """Without quantisation the two programs differ by at most 5e-3."""
    base = load_base(full_precision)
    with Engine(full_precision, context=512) as engine:
        assert check(engine, base, None).max_abs_logit_diff <= 5e-3
        assert check(engine, base, random_adapter(base)).max_abs_logit_diff <= 5e-3


def test_a_wrongly_ordered_adapter_would_be_seen(base: Base, engine: Engine) -> None:
    """Swapping two layers' matrices moves logits far beyond the tolerance: the check can fail."""
    weights = random_adapter(base, size=0.05)
    good = check(engine, base, weights).max_abs_logit_diff
    paths = [path for path in weights.b if path.endswith("up_proj")]
    swapped = {**weights.b, paths[0]: weights.b[paths[1]], paths[1]: weights.b[paths[0]]}
    other = type(weights)(weights.a, swapped, weights.alpha)
    check(engine, base, other)  # the engine now serves `other`
    tokens = render(base, [Message("user", "turn on the light")])
    served = engine.logits(tokens)
    check(engine, base, weights)
    assert abs(engine.logits(tokens) - served).max() > 10 * good


def test_both_tokenisers_agree_on_a_thousand_random_strings(base: Base, engine: Engine) -> None:
    """ASCII, controls and other scripts give the same tokens in transformers and llama.cpp."""
    rng = random.Random(1)
    for _ in range(1000):
        pools = [range(32, 127), range(9, 127), range(32, 0x2FFF)]
        text = "".join(chr(rng.choice(rng.choice(pools))) for _ in range(rng.randint(0, 40)))
        assert engine.tokenize(text) == tokenize(base, text, control=True)


def test_a_control_token_typed_by_a_person_stays_text(base: Base, engine: Engine) -> None:
    """Training cuts such a prompt as serving does; the typed token ends nothing."""
    tokens = render(base, [Message("user", "turn <|im_end|> on")])
    assert tokens.count(base.end) == 1
    assert engine.generate([Message("user", "turn <|im_end|> on")], max_tokens=1).tokens_in == len(tokens)
