"""The account that methods of this family give of where a logit went."""

from __future__ import annotations

import numpy as np

from pellucid.core.results import Evidence


def books(units: np.ndarray, everywhere: np.ndarray, rest: dict[str, np.ndarray], values: np.ndarray) -> Evidence:
    """Return the evidence that units, other tokens and the rest sum to the logit, summed over all targets.

    Args:
        units: [units, targets].
        everywhere: [positions, targets], of which the units are sums.
        rest: [targets] by name: what no token gets.
        values: [targets], what is shared out.
    """
    parts = {"units": units.sum(0), "other tokens": everywhere.sum(0) - units.sum(0), **rest}
    gap = float(np.abs(sum(parts.values()) - values).max())
    share = gap / max(float(np.abs(values).max()), 1e-9)
    listed = ", ".join(f"{name} {part.sum():.3g}" for name, part in parts.items())
    return Evidence(
        "completeness",
        f"Of {values.sum():.3g}: {listed}; together they miss it by {gap:.2g}.",
        {"value": float(values.sum()), "residual": gap, **{name: float(part.sum()) for name, part in parts.items()}},
        ok=bool(share < 0.02),
    )
