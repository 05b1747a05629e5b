"""Command line of the base-model tool: `python -m tools.pocket` trains, `python -m tools.pocket score` measures.

Without `--data` the embedded base is trained from the grammar; with it, a base from any file of pairs.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.pocket.data import DataError, Pair, read_pairs, split, write_pairs
from tools.pocket.export import write_gguf
from tools.pocket.grammar import generate
from tools.pocket.model import Shape
from tools.pocket.score import score
from tools.pocket.sources import from_grammar, from_pairs
from tools.pocket.tokenizer import build, train_vocabulary
from tools.pocket.train import Recipe, Source, train

PROBE_SIZE = 600
PROBE_TOTAL = 2_100  # what was held out, filled up with pairs like those of the training: replay wants many
VOCABULARY_SAMPLE = 40_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 with a message on stderr where the data cannot be used."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _score(given[1:]) if given[:1] == ["score"] else _train(given)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _train(arguments: Sequence[str]) -> int:
    options = _train_options().parse_args(arguments)
    source, sample, probe = _grammar(options.seed) if options.data is None else _file(options.data, options.seed)
    vocabulary = train_vocabulary(sample, options.vocabulary)
    shape = Shape(len(vocabulary.tokens), options.width, options.layers, options.width // 32, 32, options.inner)
    model, outcome = train(source, build(vocabulary), shape, Recipe(options.minutes, options.steps, options.seed))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    name = f"corrigible pocket {options.out.stem}"
    write_gguf(options.out, name, model.weights(), shape, vocabulary, quantized=not options.f32)
    write_pairs(options.out.with_name(f"{options.out.name}.probe.jsonl"), probe)
    parameters = sum(tensor.numel() for tensor in model.weights().values())
    size = options.out.stat().st_size
    print(json.dumps({"parameters": parameters, "bytes": size, "probe": len(probe), **asdict(outcome)}))
    return 0


def _grammar(seed: int) -> tuple[Source, list[Pair], list[Pair]]:
    probe = generate(PROBE_TOTAL, seed + 1)
    return from_grammar(seed, probe[:PROBE_SIZE]), generate(VOCABULARY_SAMPLE, seed), probe


def _file(path: Path, seed: int) -> tuple[Source, list[Pair], list[Pair]]:
    pairs, held = split(read_pairs(path), seed)
    known = random.Random(seed).sample(pairs, min(len(pairs), PROBE_TOTAL - len(held)))
    return from_pairs(pairs, seed, held), pairs, [*held, *known]


def _train_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.pocket", description="Train a small base model.")
    parser.add_argument("--data", type=Path, help="JSONL of prompt and answer; without it, the built-in grammar")
    parser.add_argument("--out", type=Path, required=True, help="the GGUF file to write")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long to train")
    parser.add_argument("--steps", type=int, help="train this many steps instead, which can be repeated exactly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=192, help="a multiple of 32")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--inner", type=int, default=448, help="a multiple of 32")
    parser.add_argument("--vocabulary", type=int, default=1536, help="most tokens to learn")
    parser.add_argument("--f32", action="store_true", help="write float32 in place of Q8_0")
    return parser


def _score(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pocket score", description="Exact match through llama.cpp.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="use only the first pairs")
    options = parser.parse_args(arguments)
    result = score(options.model, read_pairs(options.data)[: options.limit])
    for action, (right, asked) in result.by_action.items():
        print(f"{action:24} {right:5d} of {asked:5d}")
    print(f"exact {result.percent:.2f} % ({result.right} of {result.asked})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
