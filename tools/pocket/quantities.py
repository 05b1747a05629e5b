"""Numbers, clock times, days and durations: how people say them, and the one form the model answers with.

Every sampler returns `(surface, value)`: the words of the request and the text of the argument.
Clock times become 24-hour `"HH:MM"`; a bare hour is read as said (`at 7` is `"07:00"`).
"""

import random

Slot = tuple[str, str]


def _words(text: str) -> list[str]:
    return text.split()


_UNITS = _words(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
)
_TENS = _words("_ _ twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _words(
    """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"""
)
WEEKDAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
MONTHS = _words("january february march april may june july august september october november december")


def quoted(text: str) -> str:
    """The text as a quoted argument."""
    return f'"{text}"'


def in_words(number: int) -> str:
    """English words for 0 to 100."""
    if number < 20:
        return _UNITS[number]
    if number == 100:
        return "one hundred"
    tens, unit = divmod(number, 10)
    return _TENS[tens] + (f" {_UNITS[unit]}" if unit else "")


def spoken(rng: random.Random, number: int) -> str:
    """Digits or words, digits more often."""
    return str(number) if rng.random() < 0.6 else in_words(number)


def percent(rng: random.Random) -> Slot:
    """A level from 0 to 100 with its unit."""
    draw = rng.random()
    if draw < 0.08:
        return rng.choice((("half", "50"), ("maximum", "100"), ("minimum", "1"), ("full", "100")))
    number = rng.randrange(0, 101, 5) if draw < 0.7 else rng.randint(1, 100)
    return spoken(rng, number) + rng.choice(("%", " percent", " percent", "")), str(number)


def degrees(rng: random.Random) -> Slot:
    """A room temperature in degrees Celsius, in steps of a half."""
    number, half = rng.randint(5, 30), rng.random() < 0.15
    if half:
        surface = rng.choice((f"{number}.5", f"{number} and a half", f"{in_words(number)} and a half"))
    else:
        surface = spoken(rng, number)
    unit = rng.choice((" degrees", " degrees", "", " degrees celsius"))
    return surface + unit, f"{number}.5" if half else str(number)


def count(rng: random.Random) -> Slot:
    """A small count of things to buy."""
    number = rng.choice((2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20))
    return ("a dozen" if number == 12 and rng.random() < 0.5 else spoken(rng, number)), str(number)


def day(rng: random.Random) -> Slot:
    """A day adverbial: `tomorrow`, `on friday`, `on the 3rd of may` (as `"05-03"`)."""
    draw = rng.random()
    if draw < 0.35:
        word = rng.choice(("today", "tomorrow", "tomorrow", "tonight", "this weekend"))
        return word, quoted(word.removeprefix("this "))
    if draw < 0.75:
        name = rng.choice(WEEKDAYS)
        shown = name.title() if rng.random() < 0.4 else name
        return rng.choice((f"on {shown}", f"on {shown}", f"this {shown}")), quoted(name)
    month, date = rng.randrange(12), rng.randint(1, 28)
    name = MONTHS[month].title() if rng.random() < 0.4 else MONTHS[month]
    spelled = _ordinal(rng, date)
    return rng.choice((f"on {name} {spelled}", f"on the {spelled} of {name}", f"on {name} {date}")), quoted(
        f"{month + 1:02d}-{date:02d}"
    )


def _ordinal(rng: random.Random, date: int) -> str:
    if date <= 20 and rng.random() < 0.3:
        return _ORDINALS[date - 1]
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(date % 10 if date not in (11, 12, 13) else 0, "th")
    return f"{date}{suffix}"


def clock(rng: random.Random) -> Slot:
    """A clock time in one of many spoken forms."""
    hour, minute = rng.randrange(24), rng.choice((0, 0, 0, 30, 15, 45, rng.randrange(0, 60, 5), rng.randrange(60)))
    if minute == 0 and hour in (0, 12) and rng.random() < 0.5:
        return "midnight" if hour == 0 else "noon", _stamp(hour, 0)
    if rng.random() < 0.25:
        return f"{hour:02d}:{minute:02d}" if rng.random() < 0.5 else f"{hour}:{minute:02d}", _stamp(hour, minute)
    return _twelve_hours(rng, hour, minute)


def _twelve_hours(rng: random.Random, hour: int, minute: int) -> Slot:
    part, shown = _part_of_day(rng, hour), (hour - 1) % 12 + 1
    if not part:
        hour = shown
    phrase = _hour_phrase(rng, shown, minute)
    glue = " " if part[:1] in ("a", "p") and not (phrase[-1].isdigit() and rng.random() < 0.4) else ""
    return phrase + glue + part, _stamp(hour, minute)


def _part_of_day(rng: random.Random, hour: int) -> str:
    """`pm` and the like; empty where the bare hour is meant as said (only from 1 to 12)."""
    half, part = ("am", "morning") if hour < 12 else ("pm", "afternoon" if hour < 17 else "evening")
    return rng.choice(("", "", half, half, half, half if hour in (0, 12) else f" in the {part}"))


def _hour_phrase(rng: random.Random, hour: int, minute: int) -> str:
    following = hour % 12 + 1
    draw = rng.random()
    if minute == 0:
        return str(hour) if draw < 0.5 else in_words(hour) + (" o'clock" if draw < 0.7 else "")
    if minute == 30 and draw < 0.3:
        return f"half past {spoken(rng, hour)}"
    if minute == 15 and draw < 0.4:
        return f"{rng.choice(('quarter past', 'a quarter past'))} {spoken(rng, hour)}"
    if minute == 45 and draw < 0.4:
        return f"{rng.choice(('quarter to', 'a quarter to'))} {spoken(rng, following)}"
    if minute % 5 == 0 and draw < 0.2:
        return _relative(rng, hour, following, minute)
    if draw < 0.75:
        return f"{hour}:{minute:02d}"
    return f"{in_words(hour)} {'oh ' if minute < 10 else ''}{in_words(minute)}"


def _relative(rng: random.Random, hour: int, following: int, minute: int) -> str:
    if minute <= 30:
        return f"{spoken(rng, minute)} past {spoken(rng, hour)}"
    return f"{spoken(rng, 60 - minute)} to {spoken(rng, following)}"


def _stamp(hour: int, minute: int) -> str:
    return quoted(f"{hour % 24:02d}:{minute:02d}")


_FIXED = (
    ("half an hour", "30m"),
    ("an hour", "1h"),
    ("an hour and a half", "1h30m"),
    ("a minute", "1m"),
    ("a quarter of an hour", "15m"),
    ("three quarters of an hour", "45m"),
    ("two and a half hours", "2h30m"),
    ("half a minute", "30s"),
    ("a minute and a half", "1m30s"),
)


def duration(rng: random.Random) -> Slot:
    """A span of time: `ten minutes` is `"10m"`, `an hour and a half` is `"1h30m"`."""
    draw = rng.random()
    if draw < 0.15:
        surface, value = rng.choice(_FIXED)
        return surface, quoted(value)
    if draw < 0.7:
        number, unit = rng.randint(2, 60), "minute"
    elif draw < 0.85:
        number, unit = rng.randint(2, 90), "second"
    else:
        number, unit = rng.randint(2, 12), "hour"
    surface, value = f"{spoken(rng, number)} {unit}s", f"{number}{unit[0]}"
    if unit == "hour" and rng.random() < 0.4:
        extra = rng.randrange(5, 60, 5)
        surface, value = f"{surface} and {spoken(rng, extra)} minutes", f"{value}{extra}m"
    return surface, quoted(value)
