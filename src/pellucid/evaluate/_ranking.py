"""How well a ranking agrees with the truth, with ties, chance levels and intervals."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

RESOLUTION = 1e-3


def settled(scores: np.ndarray, resolution: float = RESOLUTION) -> np.ndarray:
    """Return the scores with neighbours closer than this share of the largest made equal.

    Without this, rounding in the last digit would put places of equal worth into an arbitrary order.
    """
    flat = np.asarray(scores, dtype=np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    width = resolution * max(float(np.abs(flat).max(initial=0.0)), 1e-12)
    steps = np.concatenate([[0], np.cumsum(np.diff(flat[order]) > width)])
    found = np.empty_like(flat)
    for group in range(int(steps[-1]) + 1 if len(flat) else 0):
        members = order[steps == group]
        found[members] = flat[members].mean()
    return found.reshape(np.shape(scores))


def rank_correlation(truth: np.ndarray, scores: np.ndarray, resolution: float = RESOLUTION) -> float:
    """Return Spearman's correlation with average ranks for ties; 0 for constant scores, NaN for a constant truth."""
    first, second = (rankdata(settled(values, resolution).ravel()) for values in (truth, scores))
    first, second = first - first.mean(), second - second.mean()
    if not first.any():
        return float("nan")
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size else 0.0


def average_precision(relevant: np.ndarray, scores: np.ndarray, resolution: float = RESOLUTION) -> float:
    """Return the area under precision and recall (sum of recall steps x precision; tied scores are one step)."""
    relevant, scores = np.asarray(relevant, dtype=bool).ravel(), settled(scores, resolution).ravel()
    total, area, before = int(relevant.sum()), 0.0, 0
    if total in (0, len(relevant)):
        return float("nan")
    for level in np.unique(scores)[::-1]:
        taken = scores >= level
        hits = int(relevant[taken].sum())
        area += (hits - before) / total * hits / int(taken.sum())
        before = hits
    return area


def chance_precision(relevant: np.ndarray) -> float:
    """Return the expected average precision of a random order without ties."""
    count, total = np.size(relevant), int(np.sum(relevant))
    if total in (0, count):
        return float("nan")
    places = np.arange(1, count + 1)
    return float(((total - 1) / (count - 1) * (places - 1) + 1).dot(1 / places) / count)


def area_under_roc(relevant: np.ndarray, scores: np.ndarray) -> float:
    """Return the chance that a relevant place scores above an irrelevant one, ties as one half; guessing is 0.5."""
    relevant, scores = np.asarray(relevant, dtype=bool).ravel(), settled(scores).ravel()
    good, bad = int(relevant.sum()), int((~relevant).sum())
    if not good or not bad:
        return float("nan")
    return float((rankdata(scores)[relevant].sum() - good * (good + 1) / 2) / (good * bad))


def interval(values: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over the items; NaN items are left out."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return float("nan"), float("nan"), float("nan")
    means = kept[rng.integers(len(kept), size=(draws, len(kept)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(kept.mean()), float(low), float(high)
