"""Diagnosticity: how often a metric ranks an explanation above the same scores on random units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pellucid.core.catalogue import find_entry
from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Positive, PromptLike
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import interval
from pellucid.methods import run
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-5",),
    paper="arXiv:2204.05514",
    takes="dataset",
    produces="evidence",
    better="higher",
    chance=0.5,
)
def diagnosticity(
    subject: Subject, prompts: Sequence[PromptLike], scores: Sequence[Scores], metric: str, *,
    shuffles: Positive = 5, seed: int = 0, settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return how often a metric prefers explanations that are known to be faithful to shuffled ones.

    The share of (prompt, shuffle) pairs in which the metric is better for the explanation than for the same scores on
    random units, ties counting one half (Chan et al. 2022, arXiv:2204.05514). It judges the metric, so the explanations
    should be faithful beyond doubt, such as exact Shapley values or the known answer of a bundled model. Higher is
    better, a metric that cannot tell them apart has 0.5; with a 95 % bootstrap interval over prompts. `passes` is what
    one answer of the metric costs. Exact up to the draws.

    Args:
        subject: the model.
        prompts: the prompts that were explained.
        scores: one faithful explanation per prompt.
        metric: name of a metric that takes a prompt and scores.
        shuffles: random explanations per prompt.
        seed: of the shuffles and the bootstrap.
        settings: further parameters of the metric.

    Returns:
        Evidence with the share, its interval and the forward rows per answer.

    Raises:
        InputError: unequal numbers of prompts and explanations, or a metric that is none of explanations.
    """
    entry = find_entry(metric)
    if entry is None or entry.kind != "metric" or [p["name"] for p in entry.parameters[:3]] != [
        "subject", "prompt", "scores",
    ]:  # fmt: skip
        raise InputError(f"{metric!r} is no metric of a prompt and its scores; pellucid.methods() lists them.")
    if len(prompts) != len(scores) or not len(prompts):
        raise InputError(f"{len(prompts)} prompts and {len(scores)} explanations were given; give one for each.")
    more = dict(settings or {})
    if any(p["name"] == "orders" for p in entry.parameters):
        more["orders"] = 0
    rng, shares = np.random.default_rng(seed), list[float]()
    with subject.recorded() as record:
        for prompt, given in zip(prompts, scores, strict=True):
            dealt = [given, *(replace(given, values=rng.permutation(given.values)) for _ in range(shuffles))]
            found = np.array([run(metric, subject, prompt, scores=one, **more).values["value"] for one in dealt])
            gaps = found[0] - found[1:] if entry.better == "higher" else found[1:] - found[0]
            shares.append(float(np.nanmean((gaps > 0) + 0.5 * (gaps == 0))))
    value, low, high = interval(np.array(shares), rng)
    passes = record.forwards / (len(prompts) * (shuffles + 1))
    return Evidence(
        f"diagnosticity of {metric}",
        f"In {100 * value:.0f} % of comparisons (95 % interval {100 * low:.0f} to {100 * high:.0f} %) over "
        f"{len(prompts)} prompts, {metric} prefers the faithful explanation (half is chance).",
        {"value": value, "low": low, "high": high, "passes": passes},
    )
