"""The embedded model through the engine, compared with llama.cpp's own high-level interface."""

from collections.abc import Iterator

import llama_cpp
import numpy as np
import pytest

from feedback.engine import Engine
from feedback.models import check_model, embedded_model, probe_pairs
from store.records import Message

PAIRS = 20


@pytest.fixture(scope="module")
def pocket() -> Iterator[Engine]:
    """The engine on the embedded model."""
    with Engine(check_model(embedded_model())) as engine:
        yield engine


def asks() -> list[list[Message]]:
    """Requests from the probe set."""
    return [[Message("user", prompt)] for prompt, _ in probe_pairs(embedded_model())[:PAIRS]]


def test_greedy_answers_are_those_of_the_high_level_interface(pocket: Engine) -> None:
    """Same rendered conversations, same texts."""
    llama = llama_cpp.Llama(str(embedded_model()), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    texts = [
        llama.create_completion(pocket.render(ask), max_tokens=64, temperature=0.0)["choices"][0]["text"]
        for ask in asks()
    ]
    llama.close()
    assert [pocket.generate(ask, max_tokens=64).text for ask in asks()] == texts


def test_what_the_model_answers_scores_as_exact(pocket: Engine) -> None:
    """The score of its own greedy answer agrees with the probabilities met while generating."""
    for ask in asks():
        answer = pocket.generate(ask)
        if answer.finish == "stop" and "\ufffd" not in answer.text:
            score = pocket.score(ask, answer.text)
            assert score.exact or score.tokens != answer.tokens_out  # the same text may be cut otherwise
            if score.exact:
                assert np.isclose(score.logprob, answer.mean_logprob, atol=2e-3)


def test_what_the_model_does_not_answer_scores_lower_and_not_exact(pocket: Engine) -> None:
    """An answer with another word in it is neither exact nor likelier."""
    for ask in asks():
        answer = pocket.generate(ask).text
        right, wrong = pocket.score_many([(ask, answer), (ask, answer + " qx")])
        assert not wrong.exact
        assert wrong.logprob < right.logprob
