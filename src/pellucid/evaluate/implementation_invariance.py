"""Implementation invariance: whether two models that compute the same are explained the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import PositiveFloat, PromptLike, TargetLike
from pellucid.core.results import Evidence
from pellucid.engine.question import ask
from pellucid.evaluate._explaining import explained, kept_target
from pellucid.models.subject import Subject


@metric(rows=("EVF-6",), paper="arXiv:1703.01365", takes="models", produces="evidence", better="lower")
def implementation_invariance(
    models: Sequence[Subject], prompt: PromptLike, explainer: str | Callable[..., Any], *, target: TargetLike = None,
    tolerance: PositiveFloat = 1e-4, settings: Mapping[str, Any] | None = None,
) -> Evidence:  # fmt: skip
    """Return the largest difference of the explanations of two models that compute the same, relative to the scores.

    max |R1 - R2| / max |R1| (Sundararajan et al. 2017, arXiv:1703.01365). Lower is better, 0 for every method that
    looks at the function alone; there is no chance level, since explanations that ignore the model have 0 too. That
    the models compute the same is checked on the prompt alone.

    Args:
        models: two models with the same tokens, such as one with its neurons in another order.
        prompt: the prompt.
        explainer: the name of a method, or a function with the arguments of one.
        target: what is explained; None means what the first model predicts.
        tolerance: relative difference of their outputs above which they do not compute the same.
        settings: further parameters of the explainer.

    Returns:
        Evidence with the relative difference, and that of the outputs.

    Raises:
        InputError: not two models, models that compute something else, or an explainer that gives no finite scores.
    """
    if len(models) != 2:
        raise InputError(f"{len(models)} models were given; give two that compute the same.")
    kept = kept_target(models[0], prompt, target)
    questions = [ask(model, prompt, target=kept) for model in models]
    whole = [question.score(np.ones((1, len(question.units)), dtype=bool), "delete")[0] for question in questions]
    gap = float(np.abs(whole[0] - whole[1]).max() / max(np.abs(whole[0]).max(), 1e-12))
    if gap > tolerance:
        raise InputError(f"The outputs of the models differ by {100 * gap:.2g} %; give two that compute the same.")
    first, second = (explained(model, prompt, explainer, kept, dict(settings or {})).values for model in models)
    largest = float(np.abs(first).max())
    found = float(np.abs(first - second).max()) / largest if largest else float("nan")
    return Evidence(
        "implementation invariance",
        f"Two models that compute the same are explained with a difference of {100 * found:.2g} % of the largest "
        "score (none is best).",
        {"value": found, "output_difference": gap},
        ok=bool(found < max(100 * gap, 1e-3)),
    )
