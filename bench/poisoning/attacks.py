"""What hostile devices send in place of an honest update; each is well-formed, signed and within the norm bound.

Sign-flip and scaling: Blanchard et al. 2017 (arXiv 1703.02757). Colluding: "a little is enough", Baruch et al. 2019
(arXiv 1902.06156): all send the honest mean moved by a share of the honest spread, which no single norm gives away.
Label-flip and backdoor are trained, on wrong answers and on triggered requests.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Attack = Callable[[Sequence[Vector], "Mapping[int, Mapping[str, Vector]]", float], Vector]
SPREAD = 1.5  # standard deviations the colluding ones move each coordinate


def sign_flip(own: Vector) -> Vector:
    """The opposite of what honest training found."""
    return -own


def scaled(own: Vector, bound: float) -> Vector:
    """The opposite, as loud as the norm bound allows."""
    return -own * (bound / max(float(np.linalg.norm(own)), 1e-12))


def loud(own: Vector, bound: float) -> Vector:
    """A trained attack as loud as the norm bound allows."""
    return own * (bound / max(float(np.linalg.norm(own)), 1e-12))


def colluding(honest: Sequence[Vector]) -> Vector:
    """The one update all of them send."""
    rows = np.stack(honest)
    mean = rows.mean(axis=0)
    moved = mean - SPREAD * rows.std(axis=0) * np.sign(mean)
    return np.asarray(moved * (np.median(np.linalg.norm(rows, axis=1)) / max(float(np.linalg.norm(moved)), 1e-12)))
