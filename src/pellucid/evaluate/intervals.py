"""A metric over several examples: its mean with a bootstrap interval, and the same for its gap to chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metadata_of
from pellucid.core.results import Evidence
from pellucid.evaluate._ranking import interval
from pellucid.methods import function


def over_examples(metric: str, found: Sequence[Evidence], *, seed: int = 0, draws: int = 2000) -> Evidence:
    """Return the mean of a metric over examples with a 95 % bootstrap interval.

    Examples are drawn with replacement; those where the metric is NaN are left out and counted. `gap` is the mean
    difference to each example's own chance level (random orders, an exact level, or the one the metric states), with
    its interval, signed so that more than 0 is better than chance; `ok` says on which side of 0 the interval lies.

    Args:
        metric: name of the metric.
        found: its answer for each example.
        seed: of the bootstrap.
        draws: resamples.

    Returns:
        Evidence with `value`, `low`, `high`, `examples`, `left_out` and, where there is a chance level, `chance`,
        `gap`, `gap_low`, `gap_high`.

    Raises:
        InputError: no example.
    """
    if not found:
        raise InputError(f"No example of {metric} was given; run it on one or more.")
    stated, rng = metadata_of(function(metric)), np.random.default_rng(seed)
    values = np.array([one.values["value"] for one in found])
    mean, low, high = interval(values, rng, draws)
    missing = int(np.isnan(values).sum())
    summary = {"value": mean, "low": low, "high": high, "examples": float(len(found) - missing)}
    summary["left_out"] = float(missing)
    names = [next((name for name in ("random_mean", "chance") if name in one.values), "") for one in found]
    fixed = np.nan if stated.chance is None else float(stated.chance)
    levels = np.array([one.values[name] if name else fixed for one, name in zip(found, names, strict=True)])
    said, ok = "", None
    if not np.isnan(values - levels).all():
        sign = 1 if stated.better == "higher" else -1
        gap, gap_low, gap_high = interval(sign * (values - levels), rng, draws)
        chance = float(np.mean(levels[~np.isnan(values - levels)]))
        summary |= {"chance": chance, "gap": gap, "gap_low": gap_low, "gap_high": gap_high}
        said = f"; better than chance by {gap:.3g} (95 % interval {gap_low:.3g} to {gap_high:.3g})"
        ok = True if gap_low > 0 else False if gap_high < 0 else None
    return Evidence(
        metric.replace("_", " "),
        f"Mean {mean:.3g} (95 % interval {low:.3g} to {high:.3g}) over {len(found) - missing} examples, "
        f"{stated.better} is better{said}.",
        summary,
        ok=ok,
    )
