"""The privacy claim in words: an epsilon is never printed without its delta, unit, adjacency and trust."""

from typing import Literal

Unit = Literal["correction", "device"]
TRUST: dict[Unit, str] = {
    "correction": "noise on this device, server not trusted",
    "device": "noise from every device, server sees their secure sum only",
}


def claim(epsilon: float, delta: float, unit: Unit) -> str:
    """Return e.g. ``epsilon 2.00 at delta 1e-06 per correction (add or remove one; noise on this device, …)``."""
    return f"epsilon {epsilon:.2f} at delta {delta:g} per {unit} ({terms(unit)})"


def terms(unit: Unit) -> str:
    """Return adjacency and trust alone, for the head of a table."""
    return f"add or remove one {unit}; {TRUST[unit]}"
