"""Owners made from SNIPS: `python -m bench.replay.snips SNIPS OUT` writes a base's pairs, its test and eight logs.

SNIPS (github.com/sonos/nlu-benchmark, CC0) holds requests to a voice assistant and no users. So users are made by
habit: the base is trained on five of the seven intents in the set's own names; every owner also says one of the two
others, writes one known intent in names of their own, and repeats themselves as people do. Where a request stands
in the set's test part it goes to the base's test and to nobody's log. The same seed gives the same files.
"""

import argparse
import json
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

UNKNOWN = ("RateBook", "SearchCreativeWork")  # intents the base never sees
KNOWN = ("AddToPlaylist", "BookRestaurant", "GetWeather", "PlayMusic", "SearchScreeningEvent")
OWN_NAMES: tuple[Mapping[str, str], ...] = (  # what an owner calls an intent and its slots
    {"PlayMusic": "Jukebox", "artist": "by", "service": "on", "music_item": "what"},
    {"GetWeather": "Sky", "city": "where", "timeRange": "when", "state": "where", "country": "where"},
    {"AddToPlaylist": "Keep", "playlist": "list", "artist": "by", "playlist_owner": "whose"},
    {"BookRestaurant": "Table", "party_size_number": "seats", "restaurant_type": "kind", "timeRange": "when"},
)
OWNERS, EVENTS = 8, 400
ORDINARY, NEW, RENAMED = 0.4, 0.3, 0.3  # shares of an owner's first-time requests
REPEATED = 0.25  # share of the log that was said before
_SLOT = re.compile(r"(?<=[(,] )(\w+)(?=: )|(?<=\()(\w+)(?=: )")


class Request(NamedTuple):
    """One line of the set."""

    intent: str
    prompt: str
    answer: str


def read(path: Path) -> list[Request]:
    """Every distinct prompt of one file, in its order."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {row["prompt"]: Request(row["answer"].split("(")[0], row["prompt"], row["answer"]) for row in rows}
    return list(found.values())


def renamed(request: Request, names: Mapping[str, str]) -> Request:
    """The request with its answer in an owner's own names."""
    intent, _, rest = request.answer.partition("(")
    slots = _SLOT.sub(lambda match: names.get(match.group(), match.group()), f"({rest}")
    return request._replace(answer=names.get(intent, intent) + slots)


def owner_log(number: int, pools: Mapping[str, list[Request]], rng: random.Random) -> list[Request]:
    """One owner's requests; takes what is said for the first time out of `pools`, so that owners share nothing."""
    names = OWN_NAMES[number % len(OWN_NAMES)]
    own, new = next(name for name in names if name in KNOWN), UNKNOWN[number // len(OWN_NAMES)]
    others = [intent for intent in KNOWN if intent != own]
    log: list[Request] = []
    while len(log) < EVENTS:
        if len(log) >= 10 and rng.random() < REPEATED:
            log.append(rng.choice(log))
            continue
        intent = rng.choices((rng.choice(others), new, own), (ORDINARY, NEW, RENAMED))[0]
        drawn = pools[intent].pop()
        log.append(renamed(drawn, names) if intent == own else drawn)
    return log


def main() -> None:
    """Read the set, write three files."""
    parser = argparse.ArgumentParser(description="Make a base's data and owners' logs from SNIPS.")
    parser.add_argument("snips", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-names", action="store_true", help="owners' logs without what they name otherwise")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    train, test = read(options.snips / "train.jsonl"), read(options.snips / "test.jsonl")
    pools = {intent: [one for one in train if one.intent == intent] for intent in (*KNOWN, *UNKNOWN)}
    for pool in pools.values():
        rng.shuffle(pool)
    logs = [owner_log(number, pools, rng) for number in range(OWNERS)]
    if options.base_names:
        logs = [[one for one in log if one.answer.startswith(one.intent)] for log in logs]
    options.out.mkdir(parents=True, exist_ok=True)
    _write(options.out / "base_train.jsonl", (_pair(one) for intent in KNOWN for one in pools[intent]))
    _write(options.out / "base_val.jsonl", (_pair(one) for one in test if one.intent in KNOWN))
    lines = ({"user": f"owner-{number}", "time": 60 * at} | _pair(one) for number, log in enumerate(logs, 1)
             for at, one in enumerate(log))  # fmt: skip
    _write(options.out / "devices.jsonl", lines)


def _pair(request: Request) -> dict[str, object]:
    return {"prompt": request.prompt, "answer": request.answer}


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
