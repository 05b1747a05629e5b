"""The plan: what it says of a fleet agrees with itself, and the picture can be opened alone."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.main import run
from federation.forecast import USEFUL, Question, coordinates, devices_needed, forecast, signal
from feedback.models import embedded_model
from store.errors import UsageError

ASKED = Question(
    unit="correction", devices=100, rounds=3, steps=3, sampling_rate=1.0, corrections=100, coordinates=18_560,
    delta=1e-6,
)  # fmt: skip


@pytest.mark.parametrize("unit", ["correction", "device"])
def test_the_devices_needed_are_the_fewest_that_are_enough(unit: str) -> None:
    """With that many the signal reaches the mark, with one fewer it does not."""
    question = replace(ASKED, unit=unit)
    needed = devices_needed(question, 3.0)
    assert needed is not None
    assert signal(question, 3.0, needed - 1) < USEFUL <= signal(question, 3.0, needed)


@pytest.mark.parametrize(("unit", "factor"), [("correction", 4), ("device", 2)])
def test_twice_the_noise_takes_four_or_two_times_the_devices(unit: str, factor: int) -> None:
    """The square in the first mode, in proportion in the second."""
    question = replace(ASKED, unit=unit)
    few, many = (devices_needed(question, noise) for noise in (8.0, 16.0))
    assert few
    assert many == pytest.approx(factor * few, rel=0.02)


def test_a_stricter_epsilon_costs_noise_and_signal() -> None:
    """And the total stays within what was asked for."""
    loose, strict = (forecast(ASKED, epsilon=epsilon, noise=None, spent=()) for epsilon in (8.0, 4.0))
    assert loose.epsilon_total <= 8.0
    assert strict.noise_multiplier > loose.noise_multiplier
    assert strict.signal < loose.signal


def test_neither_epsilon_nor_noise_is_no_question() -> None:
    """One of them has to be given."""
    with pytest.raises(UsageError):
        forecast(ASKED, epsilon=None, noise=None, spent=())


def test_the_coordinates_are_those_of_an_update() -> None:
    """Read from the model's header alone: outputs of every linear of the first layers, times the rank."""
    assert coordinates(embedded_model(), 2, 5) == 2 * coordinates(embedded_model(), 1, 5) > 0
    assert coordinates(embedded_model(), 1, 0) == 0


def test_the_picture_is_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SVG with a line for each epsilon, its legend, its style, and above it all that belongs to an epsilon."""
    monkeypatch.setenv("CORRIGIBLE_HOME", str(tmp_path / "home"))
    path = tmp_path / "plan.svg"
    assert run(["init", "--key", "file", "--insecure-key-file", "--json"]) == 0
    assert run(["privacy", "plan", "--noise", "3", "--picture", str(path), "--json"]) == 0
    root = ElementTree.parse(path).getroot()
    words = " ".join(root.itertext())
    assert root.tag.endswith("svg")
    assert all(f"epsilon {epsilon}" in words for epsilon in (1, 2, 4, 8))
    seen = " ".join(one.text or "" for one in root.iter() if one.tag.endswith("}text"))
    assert "epsilon at delta 1e-06 per correction (add or remove one correction; noise on the device" in seen
