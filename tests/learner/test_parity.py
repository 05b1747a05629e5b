"""What is trained is what is served."""

import random

from feedback.engine import Engine
from feedback.models import ModelFile
from learner.base import Base, load_base, render, tokenize
from learner.lora import LoraWeights
from learner.parity import check
from store.records import Message
from tests.learner.conftest import random_adapter

LIMITS = {"float32": 5e-3, "float16": 0.05}  # largest logit difference


def test_the_served_path_computes_what_was_trained(unquantised: ModelFile) -> None:
    """With the same weights as floats, PEFT and llama.cpp differ by rounding only, base and adapted."""
    base = load_base(unquantised)
    limit = LIMITS[unquantised.path.stem]
    with Engine(unquantised, context=512) as engine:
        assert check(engine, base, None).max_abs_logit_diff <= limit
        assert check(engine, base, random_adapter(base)).max_abs_logit_diff <= limit
        _assert_that_a_wrong_order_is_seen(base, engine, 10 * limit)


def test_quantisation_costs_little_with_and_without_an_adapter(base: Base, engine: Engine) -> None:
    """llama.cpp multiplies Q8_0 weights by activations rounded to 8 bits; next tokens move by < 0.1 nat."""
    plain, adapted = check(engine, base, None), check(engine, base, random_adapter(base))
    assert plain.kl <= 0.05
    assert adapted.kl <= 0.1
    assert max(plain.max_abs_logit_diff, adapted.max_abs_logit_diff) <= 1.5


def _assert_that_a_wrong_order_is_seen(base: Base, engine: Engine, limit: float) -> None:
    """Swapping two layers' matrices moves logits beyond the tolerance: the check can fail."""
    weights = random_adapter(base, size=0.1)
    paths = [path for path in weights.b if path.endswith("up_proj")]
    swapped = {**weights.b, paths[0]: weights.b[paths[1]], paths[1]: weights.b[paths[0]]}
    tokens = render(base, [Message("user", "turn on the light")])
    served = []
    for one in (weights, LoraWeights(weights.a, swapped, weights.alpha)):
        check(engine, base, one)  # leaves it serving
        served.append(engine.logits(tokens))
    assert abs(served[0] - served[1]).max() > limit


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
