"""Recompute the privacy ledger from its own log alone: ``corrigible privacy ledger --json | python -m tools.recount``.

Imports nothing of the product and neither of its accountants. The privacy loss of the Poisson-subsampled Gaussian
mechanism is put on a fine grid (rounded to the nearest point, so this is an estimate and no bound), composed by FFT,
and read off as epsilon at the ledger's delta, for adding and for removing one unit; the larger counts.

Also checks what the log must say of itself: one spend a run, no message that was not paid for, one size per mechanism.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

STEP = 5e-4  # of the grid of privacy losses
REACH = 64.0  # the grid spans -REACH to REACH
TRUST = {
    "correction": "noise on the device, the server is not trusted",
    "device": "noise from every device, the server sees their secure sum only",
}
TOLERANCE = 0.01  # relative difference that still counts as agreement
POINTS = 2 * int(REACH / STEP)
LOSSES = (np.arange(POINTS) - POINTS // 2) * STEP


def transforms(sigma: float, rate: float, steps: int) -> list[np.ndarray]:
    """Fourier transforms of the loss of `steps` steps, for removing and for adding a unit."""
    return [np.fft.rfft(np.roll(masses(sigma, rate, add), -(POINTS // 2))) ** steps for add in (False, True)]


def masses(sigma: float, rate: float, add: bool) -> np.ndarray:
    """Probability that the loss of one step rounds to each grid point.

    With P = (1 - q) N(0, s²) + q N(1, s²) and Q = N(0, s²), the loss is log P/Q under P, or log Q/P under Q.
    """
    edges = np.append(LOSSES - STEP / 2, LOSSES[-1] + STEP / 2)
    if add:
        return np.diff(1 - ndtr(_place(-edges, sigma, rate) / sigma))
    x = _place(edges, sigma, rate)
    return np.diff((1 - rate) * ndtr(x / sigma) + rate * ndtr((x - 1) / sigma))


def _place(loss: np.ndarray, sigma: float, rate: float) -> np.ndarray:
    """The outcome at which log P/Q equals `loss`; minus infinity where it is never so small."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (np.exp(loss) - (1 - rate)) / rate
        return np.where(inner > 0, sigma**2 * np.log(np.maximum(inner, 0)) + 0.5, -np.inf)


def epsilon(products: list[np.ndarray], delta: float) -> float:
    """Smallest epsilon at `delta` of composed losses given as transforms."""
    return max(_read_off(np.roll(np.fft.irfft(one, POINTS), POINTS // 2), delta) for one in products)


def _read_off(mass: np.ndarray, delta: float) -> float:
    """Bisect delta(epsilon) = sum over losses above epsilon of mass (1 - exp(epsilon - loss))."""
    low, high = 0.0, REACH
    while high - low > 1e-6:
        middle = (low + high) / 2
        above = middle < LOSSES
        spent = float((mass[above] * -np.expm1(middle - LOSSES[above])).sum())
        low, high = (low, middle) if spent <= delta else (middle, high)
    return high


def recount(spends: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return (epsilon of the run, total so far of its unit) for each spend, in order."""
    totals: dict[str, list[np.ndarray]] = {}
    found = []
    for spend in spends:
        own = transforms(spend["noise_multiplier"], spend["sampling_rate"], spend["steps"])
        before = totals.get(spend["unit"])
        totals[spend["unit"]] = own if before is None else [a * b for a, b in zip(before, own, strict=True)]
        found.append((epsilon(own, spend["delta"]), epsilon(totals[spend["unit"]], spend["delta"])))
    return found


def complaints(spends: list[dict[str, Any]], egress: list[dict[str, Any]]) -> list[str]:
    """Everything in the log that does not hold, in words."""
    bad = []
    if len({spend["run"] for spend in spends}) != len(spends):
        bad.append("a run is named twice")
    left = [one for one in egress if one["purpose"] == "share"]
    if {one["payload"] for one in left} != {spend["payload"] for spend in spends}:
        bad.append("the messages that left are not those that were paid for")
    if len({one["size"] for one in left}) > len({spend["noise_multiplier"] for spend in spends}):
        bad.append("messages of one mechanism differ in size")
    for number, (spend, (own, total)) in enumerate(zip(spends, recount(spends), strict=True), 1):
        for name, claimed, true in (("epsilon", spend["epsilon"], own), ("total", spend["total"], total)):
            if abs(claimed - true) > TOLERANCE * true:
                bad.append(f"spend {number}: {name} {claimed:.4f} is recounted as {true:.4f}")
    return bad


def main() -> int:
    """Print the recount; 1 when anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.recount", description=__doc__)
    parser.add_argument("ledger", type=Path, nargs="?", help="output of `privacy ledger --json`; absent: stdin")
    path = parser.parse_args().ledger
    data = json.loads(path.read_text() if path else sys.stdin.read())["data"]
    for spend, (own, total) in zip(data["spends"], recount(data["spends"]), strict=True):
        print(
            f"epsilon at delta {spend['delta']:g} per {spend['unit']} (add or remove one {spend['unit']}; "
            f"{TRUST[spend['unit']]}): {spend['epsilon']:.4f} recounted {own:.4f}; "
            f"total {spend['total']:.4f} recounted {total:.4f}"
        )
    bad = complaints(data["spends"], data["egress"])
    print("\n".join(bad) if bad else f"{len(data['spends'])} spends, all as recounted")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
