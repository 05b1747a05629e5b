"""When the learner may work: every rule, from values alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.conditions import (
    Backlog,
    Budget,
    Device,
    Manners,
    Start,
    Wait,
    burst,
    decide,
    problems,
    room,
    starved,
    threads,
)

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
FINE = Device(
    cores=4, mains=True, battery=80.0, temperature=50.0, load=0.1, idle=600.0, metered=False, memory=8000.0
)
WORK = Backlog(new=10)


def ask(device: Device = FINE, backlog: Backlog = WORK, used: float = 0.0, **settings: object) -> Start | Wait:
    """Decide at noon."""
    return decide(NOON, device, backlog, Budget(used), Manners(**settings))  # type: ignore[arg-type]


def test_a_fine_machine_with_work_starts() -> None:
    """All free cores are used."""
    assert ask() == Start(threads=3)


@pytest.mark.parametrize(
    ("device", "settings", "code", "words"),
    [
        (replace(FINE, mains=False), {}, "power", "on battery"),
        (replace(FINE, mains=False, battery=40.0), {"mains_only": False}, "power", "battery at 40 %, below 60 %"),
        (replace(FINE, temperature=91.0), {}, "temperature", "91 °C hot"),
        (replace(FINE, load=0.9), {}, "load", "other programs use 90 % of the processor"),
        (replace(FINE, idle=3.0), {}, "activity", "you are here"),
        (replace(FINE, metered=True), {"metered": False}, "network", "on a metered network"),
        (replace(FINE, memory=100.0), {}, "memory", "only 100 MiB of memory are free"),
        (FINE, {"hours": "22-6"}, "hours", "outside the hours 22-6"),
    ],
)
def test_each_rule_gives_its_reason(device: Device, settings: dict[str, object], code: str, words: str) -> None:
    """One thing wrong is one reason, with a moment to look again in the future."""
    ruling = ask(device, **settings)
    assert isinstance(ruling, Wait)
    assert (ruling.code, ruling.reason) == (code, words)
    assert ruling.next_look > NOON.timestamp()


def test_on_battery_above_the_floor_learns_when_allowed() -> None:
    """The owner can allow battery."""
    assert isinstance(ask(replace(FINE, mains=False), mains_only=False), Start)


def test_the_moments_to_look_again_are_the_moments_things_change() -> None:
    """Hours open at ten, minutes begin anew at midnight, a person may be gone after the idle time."""
    def later(ruling: Start | Wait) -> timedelta:
        assert isinstance(ruling, Wait)
        return timedelta(seconds=round(ruling.next_look - NOON.timestamp()))

    assert later(ask(hours="22-6")) == timedelta(hours=10)
    assert later(ask(used=60.0)) == timedelta(hours=12)
    assert later(ask(replace(FINE, idle=20.0))) == timedelta(seconds=40)


@pytest.mark.parametrize(
    ("backlog", "code"),
    [(Backlog(new=9), "backlog"), (Backlog(new=200, burst=200), "burst"),
     (Backlog(new=50, retry_at=NOON.timestamp() + 60, failure="no memory"), "failed")],
)  # fmt: skip
def test_the_work_decides_first(backlog: Backlog, code: str) -> None:
    """Too little, too fast to be a person, or failed a moment ago: no look at the machine is needed."""
    ruling = ask(backlog=backlog)
    assert isinstance(ruling, Wait)
    assert ruling.code == code


def test_a_run_that_was_cut_off_goes_on_without_new_corrections() -> None:
    """Its corrections were enough when it began."""
    assert isinstance(ask(backlog=Backlog(unfinished=True)), Start)


@pytest.mark.parametrize("missing", ["mains", "temperature", "idle", "load", "memory"])
def test_unknown_is_what_the_settings_say(missing: str) -> None:
    """Wait, go on as if fine, or (for heat, power and people) with care: one thread and half the minutes."""
    device = replace(FINE, **{missing: None})  # type: ignore[arg-type]
    assert isinstance(ask(device, unknown="wait"), Wait)
    assert isinstance(ask(device, unknown="go"), Start)
    if missing in ("mains", "temperature", "idle"):
        assert ask(device) == Start(threads=1, careful=True)
        used_half = ask(device, used=31.0)
        assert isinstance(used_half, Wait)
        assert used_half.code == "minutes"


@given(
    st.builds(
        Device, cores=st.integers(1, 64), mains=st.none() | st.booleans(), battery=st.none() | st.floats(0, 100),
        temperature=st.none() | st.floats(-20, 120), load=st.none() | st.floats(0, 1),
        idle=st.none() | st.floats(0, 1e6), metered=st.none() | st.booleans(), memory=st.none() | st.floats(0, 1e6),
    ),
    st.sampled_from(["wait", "careful", "go"]),
)  # fmt: skip
def test_whatever_the_machine_says_the_answer_is_sound(device: Device, unknown: str) -> None:
    """Between 1 and all cores, or a reason in words and a later moment; a person on battery is never disturbed."""
    ruling = ask(device, unknown=unknown)
    if isinstance(ruling, Start):
        assert 1 <= ruling.threads <= device.cores
        assert device.mains is not False
        assert device.idle is None or device.idle >= 60
    else:
        assert ruling.reason
        assert ruling.next_look > NOON.timestamp()


def test_threads_follow_the_load() -> None:
    """Half the machine in use by others leaves half."""
    given = [threads(replace(FINE, load=load), Manners()) for load in (0.0, 0.5, 0.74, 1.0)]
    assert given == [4, 2, 1, 1]
    assert threads(FINE, Manners(threads=2)) == 2


@pytest.mark.parametrize(
    ("free", "cap", "dense"),
    [(None, 0.0, True), (2448.0, 0.0, True), (2447.0, 0.0, False), (8000.0, 2447.0, False), (2447.0, 8000.0, False)],
)
def test_a_base_is_held_dense_where_it_fits(free: float | None, cap: float, dense: bool) -> None:
    """100 million weights ask for 400 MiB beside the rest; what is free and what may be taken both count."""
    assert room(100 * 2**20, free, cap) is dense


def test_a_burst_is_the_most_within_a_minute() -> None:
    """Two hundred in a minute are found among slower ones."""
    slow = [100.0 * number for number in range(20)]
    assert burst(slow) == 1
    assert burst([*slow, *(5000.0 + 0.3 * number for number in range(200))]) == 200
    assert burst([]) == 0


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("could not create a primitive"), True),
        (FileNotFoundError(2, "No such file or directory", "/home/memory/model.gguf"), False),
    ],
)
def test_no_memory_is_told_from_other_faults(error: Exception, meant: bool) -> None:
    """By what is said, not by a word that a path may hold."""
    assert starved(error) is meant


def test_settings_that_mean_nothing_are_named() -> None:
    """Each wrong value is said."""
    wrong = Manners(unknown="perhaps", hours="late", trial_share=2.0, every=0, memory_cap=150.0)
    assert len(list(problems(wrong))) == 5
    assert not list(problems(Manners(hours="22-6")))
