"""Take out of a round's mean what is only noise: positive-part James-Stein, one column of a B factor at a time.

The noise of a private mean has a public standard deviation, so how much of a column's length is noise is known without
looking at any data. A column that is no longer than noise alone becomes zero, a long one stays nearly as it is (James
and Stein 1961; the positive part is Baranchik's, 1970). Post-processing: it costs no privacy.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def shrink(change: Mapping[str, NDArray[np.float32]], deviation: float) -> dict[str, NDArray[np.float32]]:
    """Return `change` with every column scaled by ``max(0, 1 - (n - 2) deviation² / |column|²)``, n its length.

    Args:
        change: mean change of the B factors, [out, rank] each.
        deviation: standard deviation of the noise in one coordinate of the mean; 0 changes nothing.
    """
    return {path: _columns(matrix, deviation) for path, matrix in change.items()}


def _columns(matrix: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    squares = np.square(matrix, dtype=np.float64).sum(axis=0, keepdims=True)
    noise = (matrix.shape[0] - 2) * deviation**2
    kept = np.maximum(0.0, 1.0 - noise / np.maximum(squares, np.finfo(np.float64).tiny))
    shrunk: NDArray[np.float32] = (matrix * kept).astype(np.float32)
    return shrunk
