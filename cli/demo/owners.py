"""Eight owners and a newcomer, each with words of their own that the embedded model has never heard.

Every owner has three private habits; three more are common to the whole fleet, as local idiom is, and are what a
shared adapter can carry to somebody who never took part. The rest of what they say the model already understands.
The same seed gives the same requests everywhere.
"""

import random
import re
from dataclasses import dataclass

_SLOT = re.compile(r"\{(\w+)\}")

SLOTS: dict[str, tuple[str, ...]] = {
    "room": (
        "kitchen", "living room", "bedroom", "bathroom", "hallway", "office", "garage", "attic", "basement",
        "dining room", "guest bedroom", "study", "library", "laundry room", "kids room", "workshop",
    ),
    "person": ("Anna", "Karim", "Laura", "Otto", "Ines", "Tina", "Veronica", "Maria", "Peter", "Yusuf"),
    "item": ("milk", "bread", "eggs", "coffee", "rice", "apples", "butter", "tea", "soap", "onions", "flour"),
    "hour": ("06:00", "06:30", "07:00", "07:15", "07:45", "08:00", "08:30", "09:00"),
    "number": ("5", "10", "15", "20", "25", "30", "40", "45"),
    "place": ("Berlin", "Paris", "London", "Madrid", "Rome", "Vienna", "Oslo", "Lisbon"),
}  # fmt: skip


@dataclass(frozen=True)
class Habit:
    """Several ways to say one thing, and the action it means; slots in braces appear in both."""

    phrases: tuple[str, ...]
    action: str


@dataclass(frozen=True)
class Owner:
    """A person with private habits."""

    name: str
    habits: tuple[Habit, ...]


@dataclass(frozen=True)
class Request:
    """What the owner says, the action meant, and whether the model could have known."""

    prompt: str
    answer: str
    habit: bool


FLEET_HABITS: tuple[Habit, ...] = (
    Habit(
        ("movie time in the {room}", "film night in the {room}", "cinema mode, {room}", "let's do a movie, {room}"),
        'light.dim(room="{room}", level=15)',
    ),
    Habit(
        ("nuke the {room}", "lights out, {room} people", "good night {room}", "{room} goes to sleep"),
        'light.set(room="{room}", state="off")',
    ),
    Habit(
        ("cosy up the {room}", "make the {room} snug", "snug mode in the {room}", "i'm freezing in the {room}"),
        'thermostat.set(room="{room}", degrees=23)',
    ),
)  # fmt: skip

ORDINARY: tuple[Habit, ...] = (
    Habit(("turn on the {room} light", "switch on the light in the {room}"), 'light.set(room="{room}", state="on")'),
    Habit(("buy {item}", "add {item} to my shopping list"), 'shopping.add(item="{item}")'),
    Habit(("call {person}", "put me through to {person}"), 'call.start(to="{person}")'),
    Habit(("set a timer for {number} minutes",), 'timer.start(duration="{number}m")'),
    Habit(("what's the weather in {place}",), 'weather.get(place="{place}")'),
    Habit(("wake me at {hour}", "set an alarm for {hour}"), 'alarm.set(time="{hour}")'),
    Habit(("vacuum the {room}",), 'vacuum.start(room="{room}")'),
)

OWNERS: tuple[Owner, ...] = (
    Owner("Ada", (
        Habit(("the gang wants {item}", "{item} emergency"), 'shopping.add(item="{item}", count=4)'),
        Habit(("rooster at {hour}", "cock-a-doodle {hour}"), 'alarm.set(time="{hour}", day="tomorrow")'),
        Habit(("blast the {room}", "party in the {room}"), 'volume.set(level=90, room="{room}")'),
    )),
    Owner("Ben", (
        Habit(("pasta clock {number}", "noodles, {number}"), 'timer.start(duration="{number}m", name="pasta")'),
        Habit(("buzz {person}", "{person} on the blower"), 'call.start(to="{person}")'),
        Habit(("cave mode in the {room}",), 'blind.set(room="{room}", state="closed")'),
    )),
    Owner("Cleo", (
        Habit(("sunrise in the {room}", "rise and shine {room}"), 'blind.set(room="{room}", state="open")'),
        Habit(("umbrella check {place}", "brolly for {place}"), 'weather.get(place="{place}", day="tomorrow")'),
        Habit(("bin the {item}", "no more {item} in this house"), 'shopping.remove(item="{item}")'),
    )),
    Owner("Dov", (
        Habit(("library voice in the {room}", "hush the {room}"), 'volume.set(level=10, room="{room}")'),
        Habit(("dust bunnies in the {room}", "unleash the beast in the {room}"), 'vacuum.start(room="{room}")'),
        Habit(("tea for {number}", "brew {number}"), 'timer.start(duration="{number}m", name="tea")'),
    )),
    Owner("Eva", (
        Habit(("ruby {room}", "moulin rouge in the {room}"), 'light.color(room="{room}", color="red")'),
        Habit(("siesta till {hour}", "no rooster at {hour}"), 'alarm.cancel(time="{hour}")'),
        Habit(("tell {person} i'm late", "late again, {person}"), 'message.send(to="{person}", text="running late")'),
    )),
    Owner("Finn", (
        Habit(("ocean {room}", "deep sea in the {room}"), 'light.color(room="{room}", color="blue")'),
        Habit(("stock {item}", "hoard {item}"), 'shopping.add(item="{item}", count=10)'),
        Habit(("frost the {room}", "penguins in the {room}"), 'thermostat.off(room="{room}")'),
    )),
    Owner("Gita", (
        Habit(("jog at {hour}", "running shoes {hour}"), 'alarm.set(time="{hour}", day="saturday")'),
        Habit(("smoke signal to {person}", "ping pong {person}"), 'message.send(to="{person}", text="call me")'),
        Habit(("shoo the robot from the {room}",), 'vacuum.stop(room="{room}")'),
    )),
    Owner("Hugo", (
        Habit(("smooth evening in the {room}", "velvet {room}"), 'music.play(genre="jazz", room="{room}")'),
        Habit(("sous chef {number}", "oven watch {number}"), 'timer.start(duration="{number}m", name="oven")'),
        Habit(("full beam {room}", "stadium {room}"), 'light.dim(room="{room}", level=100)'),
    )),
)  # fmt: skip

NEWCOMER = Owner("Iris", ())


def requests(owner: Owner, count: int, seed: int) -> list[Request]:
    """Return `count` requests of `owner`: two in five fleet idiom, two in five private habits, the rest ordinary.

    A newcomer without private habits says fleet idiom instead. Requests may repeat, as people do.
    """
    rng = random.Random(f"{owner.name}:{seed}")
    groups = (FLEET_HABITS, owner.habits or FLEET_HABITS, ORDINARY)
    return [_request(rng, groups[group], habit=group < 2) for group in rng.choices((0, 1, 2), (2, 2, 1), k=count)]


def _request(rng: random.Random, habits: tuple[Habit, ...], *, habit: bool) -> Request:
    """Draw one request: a habit, a phrasing, and values for its slots."""
    drawn = rng.choice(habits)
    phrase = rng.choice(drawn.phrases)
    values = {name: rng.choice(SLOTS[name]) for name in _SLOT.findall(phrase)}
    return Request(phrase.format(**values), drawn.action.format(**values), habit)
