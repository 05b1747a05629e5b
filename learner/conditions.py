"""When the learner may work: a pure function of the moment, the machine, the work there is and the owner's settings.

Nothing here reads a clock, a file or the store. What the machine does not tell is `None`, and the settings say what
that means. The first rule that objects gives the reason; `corrigible status` shows it as it stands.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

MINUTE = 60.0
MIB = 2.0**20
_DENSE = 4  # bytes a weight: float32, or bfloat16 and a second copy with a shared adapter in it
_REST = 2048.0  # MiB: libraries, what serves, a step; a run of the embedded model dies under a cap of 1500
_STARVED = ("allocate memory", "not enough memory", "out of memory", "could not create a primitive")  # system, torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """The settings under ``[learner]``; the defaults suit a person's own computer."""

    every: int = 10  # new corrections that start a run
    look_every: float = 30.0  # seconds between two looks while nothing runs
    mains_only: bool = True  # False: also on battery, down to `battery_floor`
    battery_floor: float = 60.0  # percent
    temperature: float = 80.0  # °C of the hottest sensor
    load: float = 0.75  # share of all cores that other programs may use
    idle: float = 60.0  # seconds without a sign of a person
    metered: bool = True  # whether to learn on a metered network; learning itself sends nothing
    daily_minutes: float = 60.0  # wall time a day; 0: no limit
    memory_headroom: float = 512.0  # MiB that must stay free for others
    memory_cap: float = 4096.0  # MiB the learning process may take
    hours: str = ""  # "22-6": local hours in which to learn; empty: always
    unknown: str = "careful"  # where the machine does not tell: "wait", "careful" (half the minutes, 1 thread) or "go"
    burst: int = 60  # corrections within a minute that are no person's pace
    nice: int = 10  # niceness of the learning process above the learner's own
    threads: int = 0  # at most; 0: as many as are free
    checkpoint: float = 30.0  # seconds of training that a crash may cost
    protect_base: bool = True  # whether the model's own skills must stay; False: corrections may overrule them
    trial_share: float = 0.0  # share of requests a new adapter answers until it has proved itself; 0: all at once


@dataclass(frozen=True, slots=True)
class Device:
    """What the machine tells; None: it does not."""

    cores: int = 1
    mains: bool | None = None
    battery: float | None = None  # percent
    temperature: float | None = None  # °C
    load: float | None = None  # share of all cores in use by others, 0 to 1
    idle: float | None = None  # seconds since the last sign of a person
    metered: bool | None = None
    memory: float | None = None  # MiB to be had without swapping


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work there is."""

    new: int = 0  # corrections since the last run
    unfinished: bool = False  # a run was cut off and can go on
    trial: bool = False  # an adapter is proving itself; the next waits for it
    burst: int = 0  # most new corrections within one minute
    retry_at: float = 0.0  # after a failed run: not before this moment
    failure: str = ""  # why it failed


@dataclass(frozen=True, slots=True)
class Budget:
    """What was used today."""

    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """Go on."""

    threads: int
    careful: bool = False


Code = Literal[
    "backlog", "failed", "burst", "trial", "hours", "minutes", "power", "temperature", "activity", "load", "memory",
    "network", "consent", "busy",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now."""

    code: Code
    reason: str  # words for the owner
    next_look: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class _View:
    """Everything a rule may look at."""

    now: datetime
    device: Device
    budget: Budget
    policy: Manners

    def wait(self, code: Code, reason: str, seconds: float | None = None) -> Wait:
        """Wait until the next look, or for `seconds`."""
        pause = self.policy.look_every if seconds is None else seconds
        return Wait(code, reason, self.now.timestamp() + max(1.0, pause))

    def missing(self, code: Code, what: str) -> Wait | None:
        """The machine does not tell `what`."""
        return self.wait(code, f"this machine does not tell {what}") if self.policy.unknown == "wait" else None


def decide(now: datetime, device: Device, backlog: Backlog, budget: Budget, policy: Manners) -> Start | Wait:
    """Say whether to learn now.

    Args:
        now: local time, with its zone.
    """
    view = _View(now, device, budget, policy)
    return _work(view, backlog) or hold(now, device, budget, policy) or _start(view)


def hold(now: datetime, device: Device, budget: Budget, policy: Manners) -> Wait | None:
    """Say why a run should not go on now, or None; asked again and again while one runs."""
    view = _View(now, device, budget, policy)
    return next(filter(None, (rule(view) for rule in _RULES)), None)


def threads(device: Device, policy: Manners) -> int:
    """Return how many threads are free: one that waits for a busy core slows all the others."""
    free = int(device.cores * (1.0 - (device.load or 0.0)) + 0.25)
    most = policy.threads or device.cores
    return 1 if careful(device, policy) else max(1, min(free, most, device.cores))


def careful(device: Device, policy: Manners) -> bool:
    """Whether something that matters is unknown and the settings ask for care then."""
    return policy.unknown == "careful" and None in (device.mains, device.temperature, device.idle)


def burst(times: Sequence[float], window: float = MINUTE) -> int:
    """Return the most of `times` that lie within `window` seconds."""
    ordered, first, most = sorted(times), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > window:
            first += 1
        most = max(most, last - first + 1)
    return most


def room(weights: int, free: float | None, cap: float) -> bool:
    """Say whether a base of so many `weights` can be held dense.

    Args:
        free: MiB that can be had; None: unknown.
        cap: MiB that the process may take; 0: no cap.
    """
    least = min(cap or float("inf"), float("inf") if free is None else free)
    return weights * _DENSE / MIB + _REST <= least


def starved(error: Exception) -> bool:
    """Say whether the system's, torch's or a kernel's words mean that there was no memory."""
    return any(words in str(error) for words in _STARVED)


def problems(policy: Manners) -> Iterator[str]:
    """Name what is wrong with the settings."""
    if policy.unknown not in ("wait", "careful", "go"):
        yield "unknown must be wait, careful or go"
    if policy.hours and _hours(policy.hours) is None:
        yield "hours must be like 22-6"
    if policy.trial_share > 1 or policy.load > 1:
        yield "trial_share and load are shares between 0 and 1"
    if policy.every < 1 or policy.look_every <= 0:
        yield "every and look_every must be above 0"
    if 0 < policy.memory_cap < _REST:
        yield f"memory_cap must be at least {_REST:.0f} (MiB), or 0 for none"


def _start(view: _View) -> Start:
    return Start(threads(view.device, view.policy), careful(view.device, view.policy))


def _work(view: _View, backlog: Backlog) -> Wait | None:
    """Is there anything to do?"""
    now, policy = view.now.timestamp(), view.policy
    if now < backlog.retry_at:
        return Wait("failed", f"the last run failed: {backlog.failure}", backlog.retry_at)
    if backlog.burst > policy.burst:
        return view.wait("burst", f"{backlog.burst} corrections came within a minute; look at them before they teach")
    if backlog.trial:
        return view.wait("trial", "a new adapter is proving itself in use")
    if not backlog.unfinished and backlog.new < policy.every:
        return view.wait("backlog", f"{backlog.new} of {policy.every} new corrections")
    return None


def _by_hours(view: _View) -> Wait | None:
    span = _hours(view.policy.hours)
    if span is None:
        return None
    start, end = span
    hour = view.now.hour
    if (start <= hour < end) if start < end else (hour >= start or hour < end):
        return None
    opens = view.now.replace(hour=start, minute=0, second=0, microsecond=0)
    opens += timedelta(days=1) if opens <= view.now else timedelta()
    return Wait("hours", f"outside the hours {view.policy.hours}", opens.timestamp())


def _by_minutes(view: _View) -> Wait | None:
    allowed = view.policy.daily_minutes * (0.5 if careful(view.device, view.policy) else 1.0)
    if not allowed or view.budget.minutes < allowed:
        return None
    midnight = (view.now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return Wait("minutes", f"the {allowed:g} minutes of today are used", midnight.timestamp())


def _by_power(view: _View) -> Wait | None:
    device, policy = view.device, view.policy
    if device.mains is None:
        return view.missing("power", "whether it is on mains")
    if device.mains:
        return None
    if policy.mains_only:
        return view.wait("power", "on battery", 5 * MINUTE)
    if device.battery is None or device.battery < policy.battery_floor:
        level = "" if device.battery is None else f" at {device.battery:.0f} %"
        return view.wait("power", f"battery{level}, below {policy.battery_floor:g} %", 5 * MINUTE)
    return None


def _by_temperature(view: _View) -> Wait | None:
    if view.device.temperature is None:
        return view.missing("temperature", "its temperature")
    if view.device.temperature > view.policy.temperature:
        return view.wait("temperature", f"{view.device.temperature:.0f} °C hot", MINUTE)
    return None


def _by_activity(view: _View) -> Wait | None:
    idle = view.device.idle
    if idle is None:
        return view.missing("activity", "whether somebody uses it")
    return view.wait("activity", "you are here", view.policy.idle - idle) if idle < view.policy.idle else None


def _by_load(view: _View) -> Wait | None:
    if view.device.load is None:
        return view.missing("load", "its load")
    if view.device.load > view.policy.load:
        return view.wait("load", f"other programs use {100 * view.device.load:.0f} % of the processor")
    return None


def _by_memory(view: _View) -> Wait | None:
    if view.device.memory is None:
        return view.missing("memory", "its free memory")
    if view.device.memory < view.policy.memory_headroom:
        return view.wait("memory", f"only {view.device.memory:.0f} MiB of memory are free", MINUTE)
    return None


def _by_network(view: _View) -> Wait | None:
    if view.policy.metered:
        return None
    if view.device.metered is None:
        return view.missing("network", "whether its network is metered")
    return view.wait("network", "on a metered network", 5 * MINUTE) if view.device.metered else None


_RULES: tuple[Callable[[_View], Wait | None], ...] = (
    _by_hours, _by_minutes, _by_power, _by_temperature, _by_memory, _by_network, _by_activity, _by_load,
)  # fmt: skip


def _hours(span: str) -> tuple[int, int] | None:
    """First and last hour of "22-6"; None when it does not read so."""
    first, dash, last = span.partition("-")
    if not dash or not first.strip().isdecimal() or not last.strip().isdecimal():
        return None
    start, end = int(first), int(last)
    return (start, end % 24) if start < 24 and end <= 24 and start != end % 24 else None
