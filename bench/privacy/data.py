"""Real requests as devices, newcomers and public probe sets.

Voxelurn (Wang et al. 2017): real people's logs. A device is a slice of one person's log; newcomers are people of whom
nothing takes part, and each person has words of their own. SNIPS (2017): real requests without users; the two intents
that the base was not trained on (`bench.replay.snips`) are dealt out to devices, and a newcomer asks for the same two.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.replay.snips import KNOWN, UNKNOWN, Request, read
from store.records import Example, Message

NEWCOMERS = ("device-04", "device-07", "device-11", "device-16")  # of Voxelurn; never take part
TUNING = "device-02"  # a stranger too; the learning rate is chosen on this log and it is not reported
MAX_TOKENS = 160
EACH = 60  # requests of a newcomer, and of the tuning log
JUDGING = 120  # public pairs that judge a release


@dataclass(frozen=True)
class World:
    """Who takes part with what, who does not, and what is public."""

    name: str
    devices: Sequence[Sequence[Example]]
    newcomers: Sequence[Example]
    tuning: Sequence[Example]
    public: Sequence[Example]  # the operator mends with these
    judging: Sequence[Example]  # and judges with these


def world(folder: Path, size: int, most: int) -> World:
    """Return the data in `folder`, on at most `most` devices of `size` corrections each."""
    return voxelurn(folder, size, most) if (folder / "devices.jsonl").exists() else snips(folder, size, most)


def voxelurn(folder: Path, size: int, most: int) -> World:
    """People and their words."""
    logs = people(folder)
    taking_part = [log for user, log in sorted(logs.items()) if user not in (*NEWCOMERS, TUNING)]
    pairs = public(folder / "base_val.jsonl")
    return World(
        "Voxelurn",
        list(_in_turn(taking_part, size))[:most],
        [one for user in NEWCOMERS for one in logs[user][-EACH:]],
        logs[TUNING][-EACH:],
        pairs[JUDGING:],
        pairs[:JUDGING],
    )


def snips(folder: Path, size: int, most: int) -> World:
    """Requests of two intents that are new to the base."""
    train, test = read(folder / "train.jsonl"), read(folder / "test.jsonl")
    new = _examples(train, UNKNOWN)
    random.Random(0).shuffle(new)
    tuning, new = new[:EACH], new[EACH:]
    known = _examples(test, KNOWN)
    random.Random(0).shuffle(known)
    devices = [new[first : first + size] for first in range(0, len(new) - size + 1, size)]
    return World("SNIPS", devices[:most], _examples(test, UNKNOWN), tuning, known[JUDGING:], known[:JUDGING])


def public(file: Path) -> list[Example]:
    """Pairs of the base's own language; the first `JUDGING` judge, the rest mend."""
    rows = (json.loads(line) for line in file.read_text().splitlines())
    return [example(row["prompt"], row["answer"]) for row in rows]


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


def _examples(rows: Sequence[Request], intents: Sequence[str]) -> list[Example]:
    return [example(row.prompt, row.answer) for row in rows if row.intent in intents]


def _in_turn(logs: list[list[Example]], size: int) -> Iterator[list[Example]]:
    """First slice of every log, then second, and so on."""
    for number in range(max(len(log) for log in logs) // size):
        for log in logs:
            piece = log[number * size : (number + 1) * size]
            if len(piece) == size:
                yield piece
