"""Probes against trees of files like those of real machines, and against this machine."""

import os
import time
from pathlib import Path

import pytest

from feedback import presence
from learner.probes import Probes
from store.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Folders for the sign of presence."""
    return Home.at(tmp_path / "home").create()


def tree(root: Path, **files: str) -> Path:
    """Write files below `root`; double underscores stand for slashes."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def supply(root: Path, name: str, **values: str) -> None:
    """One power supply."""
    for key, text in values.items():
        tree(root / "sys/class/power_supply" / name, **{key: text})


def test_a_machine_without_batteries_is_on_mains(home: Home, tmp_path: Path) -> None:
    """An empty list says so; a mouse's battery does not count; no list at all is unknown on this system."""
    (tmp_path / "sys/class/power_supply").mkdir(parents=True)
    assert Probes(home, tmp_path).power() == (True, None)
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity="10", status="Discharging")
    assert Probes(home, tmp_path).power() == (True, None)


@pytest.mark.parametrize(("online", "status"), [("1", "Charging"), ("0", "Discharging")])
def test_a_laptop_tells_mains_and_level(home: Home, tmp_path: Path, online: str, status: str) -> None:
    """From the adapter where there is one, else from the battery's status."""
    supply(tmp_path, "BAT0", type="Battery", capacity="64", status=status)
    assert Probes(home, tmp_path).power() == (online == "1", 64.0)
    supply(tmp_path, "AC", type="Mains", online=online)
    assert Probes(home, tmp_path).power() == (online == "1", 64.0)


def test_a_battery_that_says_nothing_is_unknown(home: Home, tmp_path: Path) -> None:
    """Status "Unknown" is not taken for mains."""
    supply(tmp_path, "BAT0", type="Battery", status="Unknown")
    assert Probes(home, tmp_path).power() == (None, None)


def test_the_hottest_sensor_counts(home: Home, tmp_path: Path) -> None:
    """Zones and hardware monitors, without readings that cannot be."""
    root = tree(
        tmp_path,
        sys__class__thermal__thermal_zone0__temp="41000",
        sys__class__hwmon__hwmon1__temp1_input="88500",
        sys__class__hwmon__hwmon1__temp2_input="-274000",
        sys__class__hwmon__hwmon2__temp1_input="255000",
    )
    assert Probes(home, root).temperature() == 88.5
    assert Probes(home, tmp_path / "none").temperature() is None


def test_a_request_is_a_sign_of_a_person(home: Home, tmp_path: Path) -> None:
    """Marked now: idle for less than a second; the file holds nothing."""
    presence.mark(home)
    presence.mark(home)
    idle = Probes(home, tmp_path).idle()
    assert idle is not None
    assert idle < 1.0
    assert (home.runtime / presence.NAME).read_bytes() == b""
    os.utime(home.runtime / presence.NAME, (time.time() - 500,) * 2)
    assert Probes(home, tmp_path).idle() == pytest.approx(500, abs=1)


def test_a_growing_count_of_input_interrupts_is_a_sign_too(home: Home, tmp_path: Path) -> None:
    """Seen from one look to the next, over all processors."""
    line = "  1:  {}  70   IO-APIC   1-edge      i8042"
    probes = Probes(home, tree(tmp_path, proc__interrupts=line.format(100)))
    probes.idle()
    time.sleep(0.3)
    before = probes.idle()
    assert before is not None
    assert before >= 0.3
    tree(tmp_path, proc__interrupts=line.format(101))
    after = probes.idle()
    assert after is not None
    assert after < 0.2


@pytest.mark.parametrize(("device", "metered"), [("wwan0", True), ("eth0", False), ("wlan0", None)])
def test_the_kind_of_network_tells_what_it_can(home: Home, tmp_path: Path, device: str, metered: bool | None) -> None:
    """Mobile is metered, cable is not, wireless may be; a phone's lease says so."""
    root = tree(tmp_path, proc__net__route=f"Iface Destination\n{device} 00000000 0")
    tree(root, **{f"sys__class__net__{device}__ifindex": "3"})
    assert Probes(home, root).metered() is metered
    tree(root, run__systemd__netif__leases__3="VENDOR_SPECIFIC=ANDROID_METERED")
    assert Probes(home, root).metered() is True


def test_energy_comes_from_packages_or_from_the_battery(home: Home, tmp_path: Path) -> None:
    """RAPL's packages without their parts; on battery what it has given."""
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", energy_now="1000000")
    assert Probes(home, tmp_path).joules() == (-3600.0, "battery")
    rapl = tmp_path / "sys/class/powercap"
    for name, value in (("intel-rapl:0", "5000000"), ("intel-rapl:1", "2000000"), ("intel-rapl:0:0", "900000000")):
        tree(rapl / name, energy_uj=value)
    assert Probes(home, tmp_path).joules() == (7.0, "rapl")
    assert Probes(home, tmp_path / "none").joules() is None


def test_a_container_s_limit_counts(home: Home, tmp_path: Path) -> None:
    """What the group may still take, when that is less than the machine has."""
    root = tree(tmp_path, **{"sys__fs__cgroup__memory.max": str(300 * 2**20)})
    tree(root, **{"sys__fs__cgroup__memory.current": str(200 * 2**20)})
    assert Probes(home, root).memory() == 100.0


def test_this_machine_is_seen(home: Home) -> None:
    """Real files and psutil: a busy loop shows as load, and not when it is ours."""
    probes = Probes(home)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    device = probes.look()
    assert device.load is not None
    assert device.load > 0.02
    assert device.cores >= 1
    assert device.memory is not None
