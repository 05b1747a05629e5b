"""The frames of the command grammar, read from `phrases.txt`, and the slots they are filled from."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tools.pocket import lexicon, quantities
from tools.pocket.quantities import Slot, quoted


@dataclass(frozen=True)
class Frame:
    """Phrasings that mean one command.

    `args` are slot names (left out of the answer where the phrase did not mention them) or literals such as
    `state="off"`; the `shared` slot may be said several times (`in the kitchen and the attic`) and then makes as many
    commands; after an `open_end` of free text no other command may follow.
    """

    action: str
    phrases: tuple[str, ...]
    args: tuple[str, ...]
    shared: str
    open_end: bool


def _closed(words: tuple[str, ...]) -> Callable[[random.Random], Slot]:
    def sample(rng: random.Random) -> Slot:
        word = rng.choice(words)
        return word, quoted(word)

    return sample


def _open(sample: Callable[[random.Random], str]) -> Callable[[random.Random], Slot]:
    def slot(rng: random.Random) -> Slot:
        text = sample(rng)
        return text, quoted(text)

    return slot


def _item(rng: random.Random) -> str:
    name = lexicon.mixed(rng, lexicon.ITEMS, 0.15).lower()
    return f"{rng.choice(lexicon.UNITS)} {name}" if rng.random() < 0.12 else name


SLOTS: dict[str, Callable[[random.Random], Slot]] = {
    "room": _closed(lexicon.ROOMS),
    "color": _closed(lexicon.COLORS),
    "door": _closed(lexicon.DOORS),
    "device": _closed(lexicon.APPLIANCES),
    "genre": _closed(lexicon.GENRES),
    "level": quantities.percent,
    "degrees": quantities.degrees,
    "count": quantities.count,
    "day": quantities.day,
    "time": quantities.clock,
    "duration": quantities.duration,
    "to": _open(lambda rng: lexicon.mixed(rng, lexicon.PEOPLE, 0.2, longest=1)),
    "item": _open(_item),
    "artist": _open(lambda rng: lexicon.mixed(rng, lexicon.ARTISTS, 0.2)),
    "song": _open(lexicon.song),
    "place": _open(lambda rng: lexicon.mixed(rng, lexicon.PLACES, 0.2)),
    "title": _open(lambda rng: lexicon.mixed(rng, lexicon.EVENTS, 0.15)),
    "task": _open(lexicon.task),
    "text": _open(lexicon.remark),
    "name": _open(lambda rng: lexicon.mixed(rng, lexicon.ITEMS, 0.15, longest=1).lower()),
}
OPEN = frozenset(("to", "item", "artist", "song", "place", "title", "task", "text", "name"))
"""Slots whose values are copied as they stand."""
ARGUMENT = {"task": "text"}
"""Slots whose argument has another name."""


def read_frames(text: str) -> tuple[Frame, ...]:
    """The frames of a phrase file; its own first lines tell the format."""
    frames: list[Frame] = []
    for line in text.splitlines():
        if line.startswith("  "):
            frames[-1] = replace(frames[-1], phrases=(*frames[-1].phrases, line.strip()))
        elif line and not line.startswith("#"):
            frames.append(_heading(line))
    return tuple(frames)


def _heading(line: str) -> Frame:
    action, *args = line.split()
    shared = next((argument[1:] for argument in args if argument.startswith("*")), "")
    names = tuple(argument.removeprefix("*") for argument in args if argument != "...")
    return Frame(action, (), names, shared, args[-1] == "...")


FRAMES = read_frames(Path(__file__).with_name("phrases.txt").read_text(encoding="utf-8"))
