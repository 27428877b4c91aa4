"""Attention from a response to the units of a prompt, and one weight per head fitted to removals of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from pellucid.core.targets import Target
from pellucid.engine.capture import expand
from pellucid.engine.question import Question, per_unit, read_position
from pellucid.engine.reading import read
from pellucid.engine.site_gradients import stacked
from pellucid.engine.variants import whole

if TYPE_CHECKING:
    from pellucid.core.params import TargetLike
    from pellucid.models.subject import Subject


class Removals(NamedTuple):
    """What one prompt teaches: attention [units, heads], kept units [subsets, units] and outcomes [subsets]."""

    attention: np.ndarray
    present: np.ndarray
    outcomes: np.ndarray


def response(subject: Subject, target: TargetLike, length: int) -> Target:
    """Return the target as a log-probability where it is one: what was asked, or the model's own continuation."""
    if target is None and subject.head == "causal-lm":
        return Target.generated(length, each=False, measure="log_prob")
    asked = target if isinstance(target, Target) else Target(target)
    if asked.measure != "auto" or callable(asked.what) or subject.head == "none":
        return asked
    return replace(asked, measure="log_prob")


@torch.no_grad()
def attention_to_units(question: Question) -> np.ndarray:
    """Return the attention of every head from the response to each unit: [units, targets, layers, heads].

    The rows are those whose outputs are read: where each token of the response is predicted (summed over tokens unless
    the target has `each`), the mask, or what a classifier pools; all rows, averaged, for models without a head. An
    encoder-decoder attends from its decoder (cross-attention).
    """
    subject, tokens, readout = question.subject, question.tokens, question.readout
    crossed = subject.kind == "encoder-decoder"
    names = expand(subject, "decoder.blocks.*.cross_attn.pattern" if crossed else "blocks.*.attn.pattern")
    _, output = read(subject, tokens, readout, [whole(tokens)], capture=names)
    assert output is not None
    count = len(readout.forced[0]) + 1
    first = 0 if crossed else read_position(question)
    layers = []
    for name in names:
        pattern = output.row(name, 0).double().cpu().numpy()[:, :, : len(tokens)]
        rows = pattern if subject.head == "none" else pattern[:, first : first + count]
        rows = rows if readout.each else rows.mean(1, keepdims=True) * (1 if subject.head == "none" else count)
        heads, targets, width = rows.shape
        by_unit = per_unit(rows.transpose(2, 0, 1).reshape(width, -1), question.units)
        layers.append(by_unit.reshape(-1, heads, targets).transpose(1, 0, 2))
    found: np.ndarray = stacked(layers).transpose(2, 3, 0, 1)
    return found


def fit_heads(prompts: Sequence[Removals], penalty: float) -> np.ndarray:
    """Return one weight per head, fitted to how the outcome changes when units are removed: [heads].

    Maximises the mean over prompts of the correlation between outcomes and predictions (present @ attention @ weights),
    less penalty * mean (heads * weight - 1)^2, which draws towards equal weights; then scales the weights by the common
    slope of outcomes on predictions.
    """
    heads = prompts[0].attention.shape[1]
    inputs = [p.present.astype(np.float64) @ p.attention for p in prompts]
    inputs = [x - x.mean(0) for x in inputs]
    outcomes = [p.outcomes - p.outcomes.mean() for p in prompts]
    aims = [y / max(float(np.linalg.norm(y)), 1e-300) for y in outcomes]

    def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = penalty * float(((scaled - 1) ** 2).mean()), 2 * penalty * (scaled - 1) / heads
        for x, aim in zip(inputs, aims, strict=True):
            predicted = x @ scaled
            size = max(float(np.linalg.norm(predicted)), 1e-12)
            close = float(predicted @ aim) / size
            value -= close / len(inputs)
            slope = slope - x.T @ (aim - close * predicted / size) / (size * len(inputs))
        return value, slope

    found = minimize(loss, np.ones(heads), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights: np.ndarray = found.x / heads
    predicted = np.concatenate([x @ weights for x in inputs])
    size = float(predicted @ predicted)
    return weights * (float(predicted @ np.concatenate(outcomes)) / size if size > 0 else 0.0)


def correlation(prompt: Removals, weights: np.ndarray) -> float:
    """Return how well predictions and outcomes of one prompt's subsets correlate; 0 where either does not vary."""
    predicted = prompt.present.astype(np.float64) @ prompt.attention @ weights
    if np.ptp(predicted) == 0 or np.ptp(prompt.outcomes) == 0:
        return 0.0
    return float(np.corrcoef(predicted, prompt.outcomes)[0, 1])
