"""Label randomisation: whether a model that learned random labels is explained otherwise than one that learned true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence
from pellucid.evaluate._explaining import explained, kept_target
from pellucid.evaluate._ranking import rank_correlation
from pellucid.models.subject import Subject


@metric(
    rows=("EVF-13",),
    paper="arXiv:1810.03292",
    takes="models",
    produces="evidence",
    better="lower",
    chance=0,
)
def label_randomisation(
    models: Sequence[Subject], prompts: Sequence[PromptLike], explainer: str | Callable[..., Any], *,
    target: TargetLike = None, settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return how alike the explanations of a model and of its twin trained on random labels are.

    The mean over prompts of Spearman's correlation of |scores| (Adebayo et al. 2018, arXiv:1810.03292, data
    randomisation). Lower is better: the twin has learned nothing about the task, so an explanation that is the same for
    both does not show what was learned; explanations that have nothing to do with each other have 0. Exact.

    Args:
        models: the model, and one of the same kind that was trained on permuted labels.
        prompts: prompts of the task.
        explainer: the name of a method, or a function with the arguments of one.
        target: what is explained; None means what the first model predicts.
        settings: further parameters of the explainer.

    Returns:
        Evidence with the mean, and the correlation per prompt as a curve.

    Raises:
        InputError: not two models, no prompt, or an explainer that gives no finite scores.
    """
    if len(models) != 2 or not len(prompts):
        raise InputError(
            f"{len(models)} models and {len(prompts)} prompts were given; give the model, its twin trained on random "
            "labels, and a prompt or more."
        )
    given, found = dict(settings or {}), []
    for prompt in prompts:
        kept = kept_target(models[0], prompt, target)
        first, second = (np.abs(explained(model, prompt, explainer, kept, given).values) for model in models)
        found.append(rank_correlation(first, second))
    value = float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")
    return Evidence(
        "label randomisation",
        f"Over {len(found)} prompts, explanations of the model and of its twin trained on random labels agree by "
        f"{value:.2f} (rank correlation; 0 is chance).",
        {"value": value},
        {"x": tuple(float(i + 1) for i in range(len(found))), "correlation": tuple(float(v) for v in found)},
    )
