"""Real people's logs from the Voxelurn study (Wang et al. 2017) as devices, newcomers and a public probe set."""

import json
from collections.abc import Iterator
from pathlib import Path

from learner.base import Base
from learner.encode import Encoded, encode_all
from store.records import Example, Message

NEWCOMERS = ("device-04", "device-07", "device-11", "device-16")  # never take part
TUNING = "device-02"  # a stranger too; the learning rate is chosen on this log and it is not reported
MAX_TOKENS = 160


def example(prompt: str, answer: str) -> Example:
    """One correction."""
    return Example(messages=(Message("user", prompt),), answer=answer, rejected="")


def people(folder: Path) -> dict[str, list[Example]]:
    """Each person's distinct requests with the program meant, in order of time."""
    found: dict[str, dict[str, str]] = {}
    for line in (folder / "devices.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["answer"]:
            found.setdefault(event["user"], {}).setdefault(event["prompt"], event["answer"])
    return {user: [example(*pair) for pair in pairs.items()] for user, pairs in found.items()}


def devices(logs: dict[str, list[Example]], size: int, most: int) -> list[list[Example]]:
    """Cut the logs of those who take part into devices of `size` corrections, people in turn; at most `most`."""
    taking_part = [log for user, log in sorted(logs.items()) if user not in (*NEWCOMERS, TUNING)]
    return list(_in_turn(taking_part, size))[:most]


def _in_turn(logs: list[list[Example]], size: int) -> Iterator[list[Example]]:
    """First slice of every log, then second, and so on."""
    for number in range(max(len(log) for log in logs) // size):
        for log in logs:
            piece = log[number * size : (number + 1) * size]
            if len(piece) == size:
                yield piece


def strangers(base: Base, logs: dict[str, list[Example]], each: int) -> list[Encoded]:
    """The last `each` distinct requests of every newcomer."""
    chosen = [one for user in NEWCOMERS for one in logs[user][-each:]]
    return encode_all(base, chosen, max_tokens=MAX_TOKENS)


def probe(base: Base, folder: Path, count: int) -> list[Encoded]:
    """The operator's public set: other people's requests that the base was not trained on."""
    rows = [json.loads(line) for line in (folder / "base_val.jsonl").read_text().splitlines()][:count]
    return encode_all(base, [example(row["prompt"], row["answer"]) for row in rows], max_tokens=MAX_TOKENS)
