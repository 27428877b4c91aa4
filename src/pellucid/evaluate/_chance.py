"""Scores as a random explanation would have them: the same numbers on other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def placed(values: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:
    """Return scores dealt out along orders, the highest to the first of each: [orders, units].

    The order of the scores themselves gives them back; a random order gives a random explanation of the same sizes.
    """
    falling = -np.sort(-np.asarray(values, dtype=np.float64))
    found = np.empty((len(orders), len(falling)))
    for row, order in zip(found, orders, strict=True):
        row[order] = falling
    return found
