"""What this machine tells about itself: power, heat, load, people, network, memory, energy.

Reads psutil and the Linux files below /sys, /proc and /run; on other systems what psutil knows. What cannot be read
is None. Starts no program and asks no network.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from feedback import presence
from learner.conditions import MIB, Device
from store.paths import Home

INPUTS = ("i8042", "keyboard", "mouse", "touch", "elan", "synaptics", "hid")  # names of input interrupts, lower case
SHORTEST = 0.1  # seconds over which a load can be told


class Probes:
    """Looks at one machine; remembers only what a rate needs.

    Args:
        home: where the sign of the owner's presence lies.
        root: the system's root folder.
    """

    def __init__(self, home: Home, root: Path = Path("/")) -> None:
        self._home, self._root = home, root
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
        self._busy, self._at = self._spent(), time.monotonic()
        self._input: tuple[int, float] | None = None  # interrupts counted, and when they last grew

    def look(self, ours: float = 0.0) -> Device:
        """Return the machine's state now.

        Args:
            ours: processor seconds the learner itself used since the last look; they are not others' load.
        """
        mains, battery = self.power()
        return Device(
            cores=self._cores, mains=mains, battery=battery, temperature=self.temperature(), load=self._load(ours),
            idle=self.idle(), metered=self.metered(), memory=self.memory(),
        )  # fmt: skip

    def power(self) -> tuple[bool | None, float | None]:
        """Return (on mains, battery percent); a machine that lists no battery is on mains."""
        folder = self._root / "sys/class/power_supply"
        if not folder.is_dir():
            return self._power_elsewhere()
        supplies = list(folder.iterdir())
        batteries = [one for one in supplies if _text(one / "type") == "Battery" and _text(one / "scope") != "Device"]
        online = [_number(one / "online") for one in supplies if _text(one / "type") in ("Mains", "USB", "UPS")]
        if not batteries:
            return True, None
        levels = [level for one in batteries if (level := _number(one / "capacity")) is not None]
        level = sum(levels) / len(levels) if levels else None
        if any(value is not None for value in online):
            return any(online), level
        states = [_text(one / "status") for one in batteries]
        known = [state for state in states if state and state != "Unknown"]
        return ("Discharging" not in known if known else None), level

    def temperature(self) -> float | None:
        """Return the hottest thermal zone or sensor, °C."""
        zones = (self._root / "sys/class/thermal").glob("thermal_zone*/temp")
        sensors = (self._root / "sys/class/hwmon").glob("hwmon*/temp*_input")
        found = [value / 1000 for path in (*zones, *sensors) if (value := _number(path)) is not None]
        return max((value for value in found if 0 < value < 150), default=None)

    def idle(self) -> float | None:
        """Return seconds since the last sign of a person: a request to us, a key in a terminal, an input device."""
        now = time.time()
        signs = [presence.last(self._home), *self._terminals(), self._devices(now)]
        known = [sign for sign in signs if sign is not None]
        return max(0.0, now - max(known)) if known else None

    def metered(self) -> bool | None:
        """Return whether the default route is metered, as far as the kind of device or its lease tells."""
        device, number = self._route()
        if device is None:
            return False if self._routes_readable() else None
        if device.startswith(("ww", "ppp", "rmnet", "usb")):
            return True
        if "ANDROID_METERED" in _text(self._root / f"run/systemd/netif/leases/{number}"):
            return True
        return None if device.startswith("wl") else False

    def memory(self) -> float | None:
        """Return MiB that can be had without swapping; inside a container, what its limit leaves."""
        free = float(psutil.virtual_memory().available) / MIB
        group = self._root / "sys/fs/cgroup"
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        return free if limit is None or used is None else min(free, max(0.0, limit - used) / MIB)

    def starved(self) -> int:
        """Return how many processes the kernel has ended for lack of memory since the machine started."""
        words = _text(self._root / "proc/vmstat").split()
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

    def joules(self) -> tuple[float, str] | None:
        """Return (energy counter, its source): RAPL's packages where readable, else what the battery has given."""
        packages = [path for path in (self._root / "sys/class/powercap").glob("*rapl:*/energy_uj") if _is_package(path)]
        values = [value for path in packages if (value := _number(path)) is not None]
        if values:
            return sum(values) / 1e6, "rapl"
        mains, _ = self.power()
        left = [value for path in (self._root / "sys/class/power_supply").glob("*") if (value := _energy(path))]
        return (-sum(left), "battery") if left and not mains else None

    def _load(self, ours: float) -> float | None:
        """Share of all cores that others used since the last look."""
        busy, now = self._spent(), time.monotonic()
        passed, used = now - self._at, busy - self._busy - ours
        self._busy, self._at = busy, now
        return None if passed < SHORTEST else min(1.0, max(0.0, used / (passed * self._cores)))

    @staticmethod
    def _spent() -> float:
        """Processor seconds spent by everybody since the machine started."""
        times = psutil.cpu_times()
        idle = (getattr(times, name, 0.0) for name in ("idle", "iowait", "guest"))
        return float(sum(times) - sum(idle))

    @staticmethod
    def _power_elsewhere() -> tuple[bool | None, float | None]:
        sensor = getattr(psutil, "sensors_battery", lambda: None)()
        return (None, None) if sensor is None else (sensor.power_plugged, float(sensor.percent))

    def _terminals(self) -> Iterator[float]:
        """When something was last typed in each terminal of a logged-in person."""
        for user in psutil.users():
            with contextlib.suppress(OSError):
                if user.terminal:
                    yield (self._root / "dev" / user.terminal).stat().st_atime

    def _devices(self, now: float) -> float | None:
        """When the count of input interrupts last grew, as seen from look to look."""
        lines = _text(self._root / "proc/interrupts").splitlines()
        typed = [line for line in lines if any(word in line.lower() for word in INPUTS)]
        if not typed:
            return None
        count = sum(int(word) for line in typed for word in line.split()[1:] if word.isdecimal())
        if self._input is None or count != self._input[0]:
            self._input = (count, now)
        return self._input[1]

    def _routes_readable(self) -> bool:
        return (self._root / "proc/net/route").is_file()

    def _route(self) -> tuple[str | None, str]:
        """The device of the default route and its number."""
        for line in _text(self._root / "proc/net/route").splitlines()[1:]:
            words = line.split()
            if len(words) > 1 and words[1] == "00000000":
                return words[0], _text(self._root / f"sys/class/net/{words[0]}/ifindex")
        return None, ""


def _text(path: Path) -> str:
    """The file's text, stripped; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    """The number a file holds."""
    try:
        return float(_text(path))
    except ValueError:
        return None


def _energy(supply: Path) -> float | None:
    """Joules left in a battery: µWh, or µAh times µV."""
    if _text(supply / "type") != "Battery":
        return None
    energy = _number(supply / "energy_now")
    if energy is not None:
        return energy * 3600 / 1e6
    charge, volts = _number(supply / "charge_now"), _number(supply / "voltage_now")
    return None if charge is None or volts is None else charge * volts * 3600 / 1e12


def _is_package(path: Path) -> bool:
    """A whole package (``intel-rapl:0``), not one of its parts (``intel-rapl:0:1``)."""
    return path.parent.name.count(":") == 1
