"""The sum of a round: the one object the strategy hands every admitted update to.

A uniform mean in constant memory; one vote per device, whatever it says about itself. The seam for robust rules and
secure sums.
"""

import numpy as np
from numpy.typing import NDArray

from federation.update import Layout, PrivateUpdate, unflatten
from store.errors import NotEligible


class UniformMean:
    """Running sum of updates in float64; the mean of N devices' private changes stays private (post-processing)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._sum = np.zeros(sum(outputs * rank for _, outputs, rank in layout), dtype=np.float64)
        self.count = 0

    def add(self, update: PrivateUpdate) -> None:
        """Take in one admitted update."""
        self._sum += update.values()
        self.count += 1

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean change of B, one matrix [outputs, rank] per linear.

        Raises:
            NotEligible: nothing was added.
        """
        if not self.count:
            raise NotEligible("no update to average", code="no_updates")
        return unflatten((self._sum / self.count).astype(np.float32), self._layout)
