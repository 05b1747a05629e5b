"""Endless streams of training pairs: drawn from the grammar, or from a file of pairs."""

import random
from collections.abc import Iterable, Sequence

from tools.pocket.augment import Swapper
from tools.pocket.data import Pair, key
from tools.pocket.grammar import JOINED, draw
from tools.pocket.train import Source


def from_grammar(seed: int, held: Iterable[Pair]) -> Source:
    """New pairs from the grammar, none with a prompt of `held`."""
    rng, forbidden = random.Random(seed), {key(pair.prompt) for pair in held}

    def take(count: int) -> list[Pair]:
        pairs: list[Pair] = []
        while len(pairs) < count:
            pair = draw(rng, JOINED)
            if key(pair.prompt) not in forbidden:
                pairs.append(pair)
        return pairs

    return take


def from_pairs(pairs: Sequence[Pair], seed: int, held: Iterable[Pair], augmented: float = 0.5) -> Source:
    """The pairs again and again, drawn by the square root of their count; a share of them with words swapped."""
    rng, forbidden = random.Random(seed), {key(pair.prompt) for pair in held}
    weights = [pair.count**0.5 for pair in pairs]
    swapper = Swapper(pairs)

    def one(pair: Pair) -> Pair:
        if rng.random() >= augmented:
            return pair
        swapped = swapper.swap(pair, rng)
        return pair if key(swapped.prompt) in forbidden else swapped

    def take(count: int) -> list[Pair]:
        return [one(pair) for pair in rng.choices(pairs, weights, k=count)]

    return take
