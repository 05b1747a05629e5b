"""From training to a file that llama.cpp and transformers both load: a micro model, a few seconds."""

import json
import random
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.pocket.__main__ import main
from tools.pocket.data import Pair, read_pairs
from tools.pocket.model import Shape
from tools.pocket.score import score
from tools.pocket.sources import from_pairs
from tools.pocket.tokenizer import build, request_text, train_vocabulary
from tools.pocket.train import Recipe, train

CHARACTERS = "abc xyz ABC 0123456789 .,;:!?'\"()[]{}<>|\\/-_=+*&^%$#@~` \n\tüßñ漢字🙂'S'll"
PAIRS = [
    {"prompt": f"turn {state} the {room} light", "answer": f'light.set(room="{room}", state="{state}")', "count": 2}
    for room in ("kitchen", "attic", "hall", "garage", "study", "porch", "cellar", "office", "nursery", "shed")
    for state in ("on", "off")
]


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for three seconds on twenty pairs, written in float32."""
    folder = tmp_path_factory.mktemp("micro")
    data, out = folder / "pairs.jsonl", folder / "micro.gguf"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    size = ["--width", "64", "--layers", "2", "--inner", "96", "--vocabulary", "400"]
    assert main(["--data", str(data), "--out", str(out), "--minutes", "0.05", "--f32", *size]) == 0
    return out


@pytest.fixture(scope="module")
def engine(micro: Path) -> llama_cpp.Llama:
    """The micro model in llama.cpp, with the logits of every position."""
    return llama_cpp.Llama(model_path=str(micro), n_ctx=256, n_threads=1, verbose=False, logits_all=True)


def test_training_learns_within_seconds() -> None:
    """Four seconds of small steps bring the loss well below that of a guess (ln 400 = 6.0)."""
    pairs = [Pair(str(pair["prompt"]), str(pair["answer"])) for pair in PAIRS]
    vocabulary = train_vocabulary(pairs, 400)
    shape = Shape(len(vocabulary.tokens), width=64, layers=2, heads=2, inner=96)
    recipe = Recipe(minutes=4 / 60, batch_tokens=320, pool=64)
    _, outcome = train(from_pairs(pairs, 0, []), build(vocabulary), shape, recipe)
    assert outcome.steps > 1
    assert outcome.loss < 5


def test_the_probe_is_written_beside_the_model(micro: Path) -> None:
    """The one held-out prompt of twenty comes first, then those of the training; llama.cpp scores the file on them."""
    probe = read_pairs(micro.with_name("micro.gguf.probe.jsonl"))
    assert len(probe) == len({pair.prompt for pair in probe}) == 20
    assert score(micro, probe[:1], quiet=True).asked == 1


def test_both_tokenisers_agree_on_any_text(micro: Path, engine: llama_cpp.Llama) -> None:
    """300 random strings become the same tokens in llama.cpp and transformers."""
    tokenizer, rng = AutoTokenizer.from_pretrained(micro.parent, gguf_file=micro.name), random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(1, 60)))
        assert tokenizer(text).input_ids == engine.tokenize(text.encode(), add_bos=False, special=True)


def test_both_engines_compute_the_same_logits(micro: Path, engine: llama_cpp.Llama) -> None:
    """The file means the same network to both: largest difference below 5e-3 in float32."""
    tokens = engine.tokenize(request_text("turn on the kitchen light").encode(), add_bos=False, special=True)
    model = AutoModelForCausalLM.from_pretrained(micro.parent, gguf_file=micro.name, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    engine.reset()
    engine.eval(tokens)
    assert np.abs(engine.scores[: len(tokens)] - expected).max() < 5e-3


def test_the_stored_chat_template_is_the_one_trained_on(micro: Path) -> None:
    """A single turn rendered by the template is exactly the training text; a system turn is rendered likewise."""
    tokenizer = AutoTokenizer.from_pretrained(micro.parent, gguf_file=micro.name)
    turns = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == request_text("hello")
    turns = [{"role": "system", "content": "be brief"}, *turns, {"role": "assistant", "content": "hi"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>system\nbe brief<|im_end|>\n"
        "<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n"
    )
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", None)


def test_a_word_has_the_same_pieces_with_and_without_a_space() -> None:
    """This is what lets a small model copy: only the first piece may differ, and only by the space."""
    tokenizer = build(train_vocabulary([Pair(str(pair["prompt"]), str(pair["answer"])) for pair in PAIRS], 400))
    for word in ("kitchen", "light", "zanzibar", "brouv"):
        bare, spaced = tokenizer.encode(word).tokens, tokenizer.encode(f" {word}").tokens
        assert "".join(spaced) == "Ġ" + "".join(bare)
        assert spaced[-len(bare) + 1 :] == bare[1:] or len(bare) == 1
