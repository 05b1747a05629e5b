"""A byte-level BPE tokeniser whose words split into the same pieces with and without a space before them.

A small model copies a word from the request into the answer, where it follows a quote and not a space. So merges are
learned on words without their space, and the space is then joined to the commonest first pieces by merges of the
lowest rank. Pieces are cut by the qwen2 pattern, which llama.cpp and transformers both know by that name.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

from tools.pocket.data import Pair

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPACE = "Ġ"  # how byte-level BPE spells a space


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id and merges by rank, as a GGUF stores them; the first three tokens are the special ones."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]


def request_text(prompt: str) -> str:
    """The conversation up to the point where the model answers."""
    return f"{TURN_START}user\n{prompt}{TURN_END}\n{TURN_START}assistant\n"


def train_vocabulary(pairs: Sequence[Pair], size: int) -> Vocabulary:
    """Learns at most `size` tokens from the pairs; about a fifth of them are joined to a space."""
    texts = [text for pair in pairs for text in (pair.prompt, pair.answer)]
    texts += ["user\nassistant\nsystem\n"] * (len(pairs) // 20 + 2)
    joined = (size - len(SPECIAL) - 256) // 4
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [_split(SPLIT), _split(" "), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL) - joined, min_frequency=3, initial_alphabet=alphabet, show_progress=False
    )
    bare.train_from_iterator(texts, trainer)
    merges = [(left, right) for left, right in json.loads(bare.to_str())["model"]["merges"]]
    merges += [(_SPACE, piece) for piece in _after_space(bare, texts, joined)]
    tokens = dict.fromkeys([*SPECIAL, *alphabet, *(left + right for left, right in merges)])
    return Vocabulary(tuple(tokens), tuple(merges))


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _after_space(bare: Tokenizer, texts: Iterable[str], most: int) -> list[str]:
    """The commonest pieces that directly follow a space, best first."""
    following: Counter[str] = Counter()
    for encoding in bare.encode_batch(list(texts)):
        pieces = encoding.tokens
        following.update(after for before, after in pairwise(pieces) if before == _SPACE and not after[0].isdigit())
    following.pop(_SPACE, None)
    return [piece for piece, _ in sorted(following.items(), key=lambda item: (-item[1], item[0]))[:most]]


def build(vocabulary: Vocabulary) -> Tokenizer:
    """The tokeniser itself, for training; special tokens in a text are recognised."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(vocabulary.merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_split(SPLIT), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[tuple[list[int], int]]:
    """Per pair the token ids of the whole turn and the number of leading ids that belong to the request.

    The last id is `<|im_end|>`: the newline after it is never predicted, since generation stops there.
    """
    requests = tokenizer.encode_batch([request_text(pair.prompt) for pair in pairs])
    answers = tokenizer.encode_batch([pair.answer + TURN_END for pair in pairs])
    return [(request.ids + answer.ids, len(request.ids)) for request, answer in zip(requests, answers, strict=True)]
