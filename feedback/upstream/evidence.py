"""How sure the device was of answers that stood and of answers that were corrected, from the store."""

from store.base import StoreBase
from store.records import Completion


def confidences(store: StoreBase) -> tuple[list[float], list[float]]:
    """Return the mean log-probabilities of the device's answers (that stood, that the owner corrected)."""
    corrected = {one.interaction for one in store.corrections()}
    right: list[float] = []
    wrong: list[float] = []
    for one in store.all(Completion):
        if one.confidence is not None:
            (wrong if one.interaction in corrected else right).append(one.confidence)
    return right, wrong
