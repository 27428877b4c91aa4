"""Effects over the pairs of a study: their mean with a paired interval, which parts stand out, and two compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pellucid.core.results import Evidence, Scores
from pellucid.core.tables import axis_labels

Part = tuple[int, int]


def mean_of(found: Sequence[Scores], title: str, says: str, *, flip: bool = False, **changes: Any) -> Scores:
    """Return the mean over pairs of results with the same shape, with its standard error and a paired interval.

    Args:
        found: one result per pair.
        title: of the mean.
        says: what the picture shows, in a sentence, for the reader.
        flip: change the sign (where corrupted values went into the clean run).
        **changes: other fields of the result.
    """
    first = found[0]
    stack = np.stack([one.values for one in found]) * (-1.0 if flip else 1.0)
    count = len(stack)
    error = stack.std(0, ddof=1) / np.sqrt(count) if count > 1 else None
    kept = ("layer", "head", "part")
    labels = {axis: axis_labels(first, axis) for axis in first.axes if axis in kept}
    fields: dict[str, Any] = {
        "axes": first.axes, "unit": first.unit, "sign": first.sign, "target": "",
        "labels": {axis: names for axis, names in labels.items() if names is not None},
    }  # fmt: skip
    evidence = [Evidence("what it shows", says)]
    if error is not None:
        clear = np.abs(stack.mean(0)) > interval_factor(count) * error
        evidence.append(
            Evidence(
                "paired interval",
                f"Over {count} prompts, the 95 % interval of {int(clear.sum())} of {clear.size} values leaves out 0; "
                f"half its width is {interval_factor(count) * error.mean():.2g} on average.",
            )
        )
    return Scores(title=title, values=stack.mean(0), std_error=error, evidence=tuple(evidence), **{**fields, **changes})


def interval_factor(count: int) -> float:
    """Return how many standard errors half a 95 % interval over `count` pairs is wide."""
    return float(stats.t.ppf(0.975, count - 1)) if count > 1 else float("inf")


def standing_out(result: Scores, *, share: float, most: int, pairs: int, largest: float | None = None) -> list[Part]:
    """Return the parts (layer, number) with a clear positive effect of at least `share` of the largest, largest first.

    Clear means that the 95 % interval over pairs leaves out 0.
    """
    values = np.asarray(result.values)
    error = np.zeros_like(values) if result.std_error is None else np.asarray(result.std_error)
    clear = (values > interval_factor(pairs) * error if pairs > 1 else values > 0) & (values > 1e-6)
    clear &= values >= share * (values.max() if largest is None else largest)
    order = np.argsort(-values, axis=None, kind="stable")
    found = [(int(i) // values.shape[1], int(i) % values.shape[1]) for i in order]
    return [part for part in found if clear[part]][:most]


def named(parts: Sequence[Part]) -> str:
    """Return heads as text: "3.1, 4.0"; none is said."""
    return ", ".join(f"{layer}.{head}" for layer, head in parts) or "none"


def agreement(first: np.ndarray, second: np.ndarray, names: tuple[str, str], top: int) -> Evidence:
    """Compare two rankings of the same parts: Spearman correlation and the overlap of the `top` parts.

    The overlap's p-value is that of drawing as many parts at random (hypergeometric). `ok` where ranks correlate and at
    least half of the top parts are shared.
    """
    a, b = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    top = max(1, min(top, a.size))
    varied = bool(np.ptp(a) > 0 and np.ptp(b) > 0)
    rank: Any = stats.spearmanr(a, b) if varied else None
    rho = float(rank.statistic) if rank is not None else float("nan")
    best = [set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (a, b)]
    shared = len(best[0] & best[1])
    luck = float(stats.hypergeom.sf(shared - 1, a.size, top, top))
    good = varied and rho > 0 and 2 * shared >= top
    return Evidence(
        f"{names[0]} and {names[1]} {'agree' if good else 'do not agree'}",
        f"Their ranks correlate with {rho:.2f} over {a.size} parts; of the {top} strongest of each, {shared} "
        f"{'is' if shared == 1 else 'are'} shared (a random ranking shares as many with a probability of {luck:.2g}).",
        {"rank_correlation": rho, "shared": float(shared), "top": float(top), "chance": luck},
        ok=good,
    )
