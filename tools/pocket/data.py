"""Pairs of request and answer: the value type, reading and writing JSONL, and the train/probe split.

It knows nothing of tokens or models.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROBE_SHARE = 0.05
PROBE_MOST = 600


class DataError(Exception):
    """A data file that cannot be used; the message names the file and line, never the text on it."""


@dataclass(frozen=True)
class Pair:
    """One request and the answer to it; `count` is how often it was seen (its weight)."""

    prompt: str
    answer: str
    count: float = 1.0


def key(prompt: str) -> str:
    """What makes two prompts the same one: case, outer space and closing punctuation do not count."""
    return prompt.casefold().strip().rstrip(".!?").strip()


def read_pairs(path: Path) -> list[Pair]:
    """Reads JSONL of `{"prompt","answer"[,"count"]}`; blank lines are skipped.

    Raises:
        DataError: the file cannot be read, or a line is not such an object (the line number is named).
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from error
    pairs = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DataError(f"{path}: holds no pairs")
    return pairs


def _parse(path: Path, number: int, line: str) -> Pair:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}, line {number}: not an object")
    for field in ("prompt", "answer"):
        if not isinstance(record.get(field), str) or not record[field].strip():
            raise DataError(f'{path}, line {number}: "{field}" is missing, empty or not text')
    count = record.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 < count < float("inf"):
        raise DataError(f'{path}, line {number}: "count" is not a positive number')
    return Pair(record["prompt"], record["answer"], float(count))


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Writes `{"prompt","answer"}` lines, replacing the file in one step."""
    text = "".join(
        json.dumps({"prompt": pair.prompt, "answer": pair.answer}, ensure_ascii=False) + "\n" for pair in pairs
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def split(pairs: Sequence[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training pairs and a probe of about 5 % (at most 600) whose prompts are nowhere in training."""
    keys = sorted({key(pair.prompt) for pair in pairs})
    size = min(PROBE_MOST, max(1, round(len(keys) * PROBE_SHARE)))
    held = set(random.Random(seed).sample(keys, size))
    train = [pair for pair in pairs if key(pair.prompt) not in held]
    found = {key(pair.prompt): pair for pair in sorted(pairs, key=lambda pair: pair.count) if key(pair.prompt) in held}
    probe = random.Random(seed).sample(list(found.values()), len(found))  # the first of them judge, so in no order
    if not train:
        raise DataError("too few distinct prompts: none is left to train on")
    return train, probe
