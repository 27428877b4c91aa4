"""Quadrature on [0, 1] for path methods, in the conventions of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import roots_legendre

if TYPE_CHECKING:
    from pellucid.core.params import Quadrature


def nodes(quadrature: Quadrature, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights on [0, 1]; the weights sum to 1.

    `gauss_legendre` integrates polynomials up to degree 2 * steps - 1 exactly; `trapezoid` has its nodes at 0 and 1
    too (halved weights);
    the Riemann sums use the left end, right end or middle of `steps` equal intervals.
    """
    if quadrature == "gauss_legendre":
        points, weights = roots_legendre(steps)
        return (points + 1) / 2, weights / 2
    if quadrature == "trapezoid" and steps > 1:
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    shift = {"riemann_left": 0.0, "riemann_right": 1.0}.get(quadrature, 0.5)
    return (np.arange(steps) + shift) / steps, np.full(steps, 1 / steps)
