"""The privacy claim in words: an epsilon is never printed without its delta, unit, adjacency and trust."""

from typing import Literal

Unit = Literal["correction", "device"]
TRUST = {
    "correction": "noise on the device, the server is not trusted",
    "device": "noise from every device, the server sees their secure sum only",
}


def claim(epsilon: float, delta: float, unit: str) -> str:
    """Return e.g. ``epsilon 2.00 at delta 1e-06 per correction (add or remove one correction; noise on …)``."""
    return f"epsilon {epsilon:.2f} at delta {delta:g} per {unit} ({terms(unit)})"


def terms(unit: str) -> str:
    """Return adjacency and trust alone, for the head of a table."""
    return f"{adjacency(unit)}; {TRUST[unit]}"


def adjacency(unit: str) -> str:
    """Return which data sets count as neighbours."""
    return f"add or remove one {unit}"
