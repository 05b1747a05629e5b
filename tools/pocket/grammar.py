"""Draws requests and their answers from the phrasings: the whole training data of the embedded base model.

The same seed gives the same pairs on every machine. No prompt is drawn twice.
"""

import random
import re
from functools import cache
from itertools import product

from tools.pocket.data import Pair, key
from tools.pocket.lexicon import IMPERATIVES
from tools.pocket.phrases import ARGUMENT, FRAMES, OPEN, SLOTS, Frame

ACTIONS: tuple[str, ...] = tuple(dict.fromkeys(frame.action for frame in FRAMES))
_BEFORE = ("please", "could you", "can you", "would you", "hey,", "ok,", "i'd like you to", "would you please", "now")
_AFTER = ("please", "thanks", "for me", "right away", "thank you", "if you can")
_JOINS = (" and ", " and ", " and then ", ", then ", ", and ", "; ", " and also ", ", ", " then ")
_IMPERATIVES = frozenset(IMPERATIVES)
_TOKEN = re.compile(r"\{\w+\}|[()|\[\]]|[^{}()|\[\]]+")
_SLOT = re.compile(r"\{(\w+)\}")


def generate(count: int, seed: int) -> list[Pair]:
    """`count` distinct pairs, in a random order fixed by `seed`."""
    rng, seen, pairs = random.Random(seed), set[str](), list[Pair]()
    while len(pairs) < count:
        pair = draw(rng)
        if key(pair.prompt) not in seen:
            seen.add(key(pair.prompt))
            pairs.append(pair)
    return pairs


USUAL = (0.8, 0.17, 0.03)  # how often a request holds one, two or three commands
JOINED = (0.62, 0.3, 0.08)  # for training: joined commands are the harder part


def draw(rng: random.Random, lengths: tuple[float, float, float] = USUAL) -> Pair:
    """One request: a single command, or two or three joined ones as often as `lengths` says."""
    commands = rng.choices((1, 2, 3), lengths)[0]
    prompt, answer, verbatim = "", list[str](), False
    for index in range(commands):
        frame = _frame(rng, closed=index < commands - 1)
        text, calls, opens = _command(rng, frame)
        prompt += (rng.choice(_JOINS) if index else "") + text
        answer += calls
        verbatim = verbatim or (opens and not index)
    return Pair(_styled(rng, _polite(rng, prompt, answer), verbatim), "; ".join(answer))


def _frame(rng: random.Random, closed: bool) -> Frame:
    while True:
        action = rng.choice(ACTIONS)
        frame = rng.choice([frame for frame in FRAMES if frame.action == action])
        if not (closed and frame.open_end):
            return frame


def _command(rng: random.Random, frame: Frame) -> tuple[str, list[str], bool]:
    """The words of one command, its call (several where a slot was said several times), and whether it opens with
    a name that is copied as it stands.
    """
    phrase = _SLOT.split(_tidy(_expand(rng, rng.choice(frame.phrases))))
    opens = not phrase[0] and phrase[1] in OPEN
    values: dict[str, list[str]] = {}
    countable = "count" not in phrase[1::2]
    for index in range(1, len(phrase), 2):
        name = phrase[index]
        many = name == frame.shared and countable and rng.random() < 0.12
        slots = [SLOTS[name](rng) for _ in range(rng.choice((2, 2, 3)) if many else 1)]
        phrase[index] = _listed([surface for surface, _ in slots], phrase[index - 1].endswith("the "))
        values[name] = [value for _, value in slots]
    calls = [_call(frame, values, index) for index in range(len(values.get(frame.shared, "_")))]
    return "".join(phrase), calls, opens


def _listed(surfaces: list[str], article: bool) -> str:
    between = " and the " if article else " and "
    if len(surfaces) == 1:
        return surfaces[0]
    return (", the " if article else ", ").join(surfaces[:-1]) + between + surfaces[-1]


def _call(frame: Frame, values: dict[str, list[str]], index: int) -> str:
    parts = []
    for argument in frame.args:
        if "=" in argument:
            parts.append(argument)
        elif argument in values:
            chosen = values[argument]
            parts.append(f"{ARGUMENT.get(argument, argument)}={chosen[index if argument == frame.shared else 0]}")
    return f"{frame.action}({', '.join(parts)})"


def _polite(rng: random.Random, prompt: str, answer: list[str]) -> str:
    if prompt.split(maxsplit=1)[0] in _IMPERATIVES and rng.random() < 0.25:
        prompt = f"{rng.choice(_BEFORE)} {prompt}"
    if not answer[-1].startswith("message.") and rng.random() < 0.1:
        prompt = f"{prompt}{rng.choice((' ', ', '))}{rng.choice(_AFTER)}"
    return prompt


def _styled(rng: random.Random, prompt: str, verbatim: bool) -> str:
    if not verbatim and rng.random() < 0.4:
        prompt = prompt[0].upper() + prompt[1:]
    asks = prompt.lower().startswith(("what", "how", "will", "does", "is it", "do i", "can", "could", "would"))
    return prompt + rng.choice(("?", "?", "") if asks else ("", "", "", "", "", "", ".", "!"))


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,:.])", r"\1", " ".join(text.split()))


Node = str | tuple[str, list["Node"]]


@cache
def _parse(phrase: str) -> "Node":
    tokens = _TOKEN.findall(phrase)
    return _alternatives(tokens, 0)[0]


def _alternatives(tokens: list[str], at: int) -> tuple["Node", int]:
    """One `a|b|c` level, up to its closing bracket."""
    options: list[Node] = []
    parts: list[Node] = []
    while at < len(tokens) and tokens[at] not in ")]":
        token, at = tokens[at], at + 1
        if token == "|":
            options.append(("all", parts))
            parts = []
        elif token in "([":
            inner, at = _alternatives(tokens, at)
            parts.append(inner if token == "(" else ("perhaps", [inner]))
            at += 1
        else:
            parts.append(token)
    return ("one", [*options, ("all", parts)]), at


def _expand(rng: random.Random, phrase: str) -> str:
    return _walk(rng, _parse(phrase))


def _walk(rng: random.Random, node: Node) -> str:
    if isinstance(node, str):
        return node
    kind, children = node
    if kind == "one":
        return _walk(rng, rng.choice(children))
    if kind == "perhaps":
        return _walk(rng, children[0]) if rng.random() < 0.45 else ""
    return "".join(_walk(rng, child) for child in children)


def phrasings(phrase: str) -> set[str]:
    """Every wording of a phrase with its slots left open."""
    return {_tidy(text) for text in _all(_parse(phrase))}


def _all(node: Node) -> list[str]:
    if isinstance(node, str):
        return [node]
    kind, children = node
    if kind == "one":
        return [text for child in children for text in _all(child)]
    if kind == "perhaps":
        return ["", *_all(children[0])]
    return ["".join(parts) for parts in product(*map(_all, children))]
