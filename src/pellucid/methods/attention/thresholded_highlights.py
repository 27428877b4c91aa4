"""Thresholded highlights: the tokens with enough attention, marked as the reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.engine.learned_attention import attention_to_units
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("ATT-17",),
    paper="arXiv:1904.10717",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("attention",),
    cost="2*F",
)
def thresholded_highlights(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token",
    threshold: Fraction | None = None, layers: Sequence[int] | None = None, scores: Scores | None = None,
    rationale: Sequence[int] | None = None,
) -> Scores:  # fmt: skip
    """Mark the units whose share of attention is above a threshold, and count how many of the right ones they are.

    R_i = a_i where a_i > tau, else 0; a is the attention of the output's position, averaged over heads and layers,
    shared out over the units so that it sums to 1. With `scores` from another method, such as LIME, their positive
    parts are thresholded in the place of attention. Unsigned. Exact as a statement about attention, which need not be a
    reason; with `rationale` the evidence judges the marks as a token classification (Thorne et al. 2019,
    arXiv:1904.10717).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        threshold: the share above which a unit is marked; None means an even share, 1 / units.
        layers: whose attention counts; None means all.
        scores: scores of the same units to be marked instead of attention.
        rationale: indices of the units that are truly the reason.

    Returns:
        Scores [unit], 0 where not marked.

    Raises:
        InputError: scores of other units, or a rationale outside the prompt.
    """
    question = ask(subject, prompt, target=target, unit=unit)
    count = len(question.units)
    if scores is None:
        attention = attention_to_units(question).mean((1, 3))
        chosen = range(attention.shape[1]) if layers is None else list(layers)
        if any(not -attention.shape[1] <= layer < attention.shape[1] for layer in chosen):
            raise InputError(f"Layers {list(chosen)} were asked for, but the model has 0 to {attention.shape[1] - 1}.")
        weights = attention[:, list(chosen)].mean(1)
    elif scores.values.shape != (count,):
        raise InputError(
            f"The scores have the shape {scores.values.shape}, but the prompt has {count} units; give scores of the "
            "same prompt and unit."
        )
    else:
        weights = np.maximum(scores.values, 0.0)
    share = weights / max(float(weights.sum()), 1e-300)
    bar = 1 / count if threshold is None else threshold
    marked = share > bar
    what = "attention" if scores is None else f"{scores.provenance.method or 'given'} scores"
    result = question.answer(
        np.where(marked, share, 0.0)[:, None], f"Units with more than {100 * bar:.0f} % of the {what}",
        unit="share", sign="0 is not marked",
    )  # fmt: skip
    return result if rationale is None else result.with_evidence(_judged(marked, share, rationale))


def _judged(marked: np.ndarray, share: np.ndarray, rationale: Sequence[int]) -> Evidence:
    """Judge marks as a classification of units; the best threshold is the one that this rationale would have chosen."""
    if any(not 0 <= unit < len(marked) for unit in rationale):
        raise InputError(f"The rationale names units {list(rationale)}, but the prompt has 0 to {len(marked) - 1}.")
    truth = np.isin(np.arange(len(marked)), list(rationale))
    precision, recall, f1 = _scored(marked, truth)
    best = max(_scored(share >= level, truth)[2] for level in share)
    every = _scored(np.ones_like(truth), truth)[2]
    return Evidence(
        "rationale",
        f"Of the marked units {100 * precision:.0f} % are in the rationale, and {100 * recall:.0f} % of it are marked "
        f"(F1 {f1:.2f}; {best:.2f} at the best threshold, {every:.2f} for marking everything).",
        {"precision": precision, "recall": recall, "f1": f1, "best_f1": best, "f1_of_everything": every},
        ok=bool(f1 > every),
    )


def _scored(marked: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    hits = float((marked & truth).sum())
    precision, recall = hits / max(int(marked.sum()), 1), hits / max(int(truth.sum()), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-300)
