"""Explainers as arguments of a metric: a method's name or a function, asked about one and the same target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.targets import resolve
from pellucid.methods import run
from pellucid.models.subject import Subject

Explainer = str | Callable[..., Any]


def explained(
    subject: Subject, prompt: PromptLike, explainer: Explainer, target: TargetLike, settings: Mapping[str, Any]
) -> Scores:
    """Return the scores that an explainer gives.

    Args:
        subject: the model.
        prompt: the prompt.
        explainer: the name of a method, or a function with the same arguments: subject, prompt, target=, settings.
        target: what is explained.
        settings: further parameters of the explainer.

    Raises:
        InputError: what it gives is not Scores, or not finite.
    """
    if isinstance(explainer, str):
        found = run(explainer, subject, prompt, target=target, **settings)
    else:
        found = explainer(subject, prompt, target=target, **settings)
    if not isinstance(found, Scores) or not np.isfinite(found.values).all():
        raise InputError(
            f"The explainer gave {type(found).__name__}, but it is judged by finite Scores; name a method that makes "
            "them."
        )
    return found


def kept_target(subject: Subject, prompt: PromptLike, target: TargetLike) -> TargetLike:
    """Return the target, or for None the token or class that the model predicts, so that changed models explain it."""
    if target is not None:
        return target
    readout = resolve(subject, subject.encode(prompt))
    return None if readout.kind == "vector" or readout.function is not None else readout.parts[0].ids[0]
