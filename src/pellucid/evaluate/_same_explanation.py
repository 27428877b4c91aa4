"""Inputs whose explanations show the same words, and whether the model predicts the same for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Scores
from pellucid.evaluate._ranking import interval


def texts(scores: Scores) -> list[str]:
    """Return the text of every unit, without white space around it and in lower case."""
    labels = scores.labels.get("unit") or (scores.units.labels if scores.units is not None else ())
    return [label.strip().lower() for label in labels]


def highlights(scores: Sequence[Scores], predictions: Sequence[Any], top: int) -> list[frozenset[str]]:
    """Return the texts of the `top` highest units of each explanation.

    Raises:
        InputError: unequal numbers, or scores that are not one finite number per unit with a text.
    """
    if len(scores) != len(predictions) or len(scores) < 2:
        raise InputError(
            f"{len(scores)} explanations and {len(predictions)} predictions were given; give one of each for two "
            "inputs or more."
        )
    found = []
    for one in scores:
        values, words = np.asarray(one.values, dtype=np.float64), texts(one)
        if one.axes != ("unit",) or len(words) != len(values) or not np.isfinite(values).all():
            raise InputError(
                f"Scores with the axes {one.axes} and {len(words)} texts were given; give one finite score and one "
                "text per unit."
            )
        found.append(frozenset(words[i] for i in np.argsort(-values, kind="stable")[:top]))
    return found


def agreement(
    name: str, partners: Sequence[Sequence[int]], predictions: Sequence[Any], draws: int, seed: int
) -> Evidence:
    """Return how often the partners of an input are predicted as it is, beside how often any other input is."""
    labels = [str(prediction) for prediction in predictions]
    shares = [
        float(np.mean([labels[j] == labels[i] for j in others])) if len(others) else float("nan")
        for i, others in enumerate(partners)
    ]
    counts = np.array([labels.count(label) for label in labels])
    paired = ~np.isnan(shares)
    chance = float(((counts - 1) / (len(labels) - 1))[paired].mean()) if paired.any() else float("nan")
    value, low, high = interval(np.array(shares), np.random.default_rng(seed), draws)
    return Evidence(
        name,
        f"Inputs with a partner of the same explanation ({int(paired.sum())} of {len(labels)}) share its prediction in "
        f"{100 * value:.0f} % of cases (all is best, {100 * chance:.0f} % chance).",
        {"value": value, "low": low, "high": high, "chance": chance, "paired": float(paired.mean())},
    )
