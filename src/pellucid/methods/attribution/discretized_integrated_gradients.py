"""Discretised integrated gradients: a path from the baseline to the input that passes near real words."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Normalise, Positive, PromptLike, Reduce, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import Question, ask, completeness, normalised, per_unit, reduced
from pellucid.models.subject import Subject


@method(
    rows=("FAG-5",),
    paper="arXiv:2108.13654",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="((steps+1)*refine+5)*F+(steps+1)*refine*targets*B",
)
def discretized_integrated_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", baseline: Baseline = "zero", strategy: Literal["greedy", "maxcount"] = "greedy",
    steps: Positive = 16, refine: Positive = 2, neighbours: Positive = 50, reduce: Reduce = "sum",
    normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the change of the target between a baseline and the input along a path that passes near real words.

    R_i = sum_d integral of df/de_id de_id along points that move from each word to the baseline without ever turning
    back in any dimension: the next anchor is a near word of the vocabulary, and where its embedding would turn back,
    the point moves 1 / steps of the way instead. Positive raises the target. With reduce="sum" and normalise="none" the
    scores sum to f(e) - f(e') up to the quadrature (midpoints); the gap is in the evidence (Sanyal & Ren 2021,
    arXiv:2108.13654).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        baseline: "zero", "mask" or "pad" (the paper's), "mean", a token id, or embeddings.
        strategy: the next anchor is the word whose point lies nearest to it ("greedy"), or the one that turns back in
            the fewest dimensions ("maxcount").
        steps: anchors of each word's path.
        refine: equal intervals between two points of the path.
        neighbours: nearest words, by embedding, among which an anchor is chosen.
        reduce: how the hidden dimension becomes one number.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, with the completeness residual as evidence.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    end = question.embeddings()
    start = question.baseline(baseline, end)
    points = _path(question, start, end, steps, neighbours, strategy)
    share = torch.arange(refine, dtype=end.dtype, device=end.device).view(1, -1, 1, 1) / refine
    fine = (points[:-1, None] + share * (points[1:] - points[:-1])[:, None]).flatten(0, 1)
    fine = torch.cat([fine, points[-1:]])
    # The middles keep away from the ends: at a baseline of zero, a norm's gradient is huge.
    _, gradients = question.gradient((fine[1:] + fine[:-1]) / 2)
    total = (gradients * (fine[1:] - fine[:-1])[:, None]).sum(0)
    scores = per_unit(np.ascontiguousarray(reduced(total, reduce).T.double().cpu().numpy()), question.units)
    result = question.answer(normalised(scores, normalise), f"Discretised integrated gradients, {strategy}")
    if reduce != "sum" or normalise != "none":
        return result
    at_end, at_start = question.values(torch.stack([end, start]))
    return result.with_evidence(completeness(scores, at_end - at_start, "the input and the baseline"))


def _path(
    question: Question, start: torch.Tensor, end: torch.Tensor, steps: int, neighbours: int, strategy: str
) -> torch.Tensor:
    """Return points [steps + 2, positions, dimension] from the baseline to the input."""
    subject = question.subject
    with torch.no_grad():
        words = subject.model.get_input_embeddings()(torch.arange(subject.vocabulary, device=subject.input_device))
    words = words.to(end)
    points = end.repeat(steps + 2, 1, 1)
    for position in question.units.positions():
        points[:, position] = _word_path(
            question.tokens.ids[position], words, start[position], end[position], steps, neighbours, strategy
        ).flip(0)
    return points


def _word_path(
    word: int, words: torch.Tensor, base: torch.Tensor, vector: torch.Tensor, steps: int, neighbours: int, strategy: str
) -> torch.Tensor:
    """Return the points of one word's path [steps + 2, dimension], from the word to the baseline."""
    points, passed = [vector], {word}
    for _ in range(steps):
        distance = (words - words[word]).square().sum(-1)
        distance[list(passed)] = torch.inf
        distance[(words == base).all(-1)] = torch.inf
        near = distance.topk(min(neighbours, len(words)), largest=False)
        candidates = near.indices[near.values.isfinite()]
        if len(candidates) == 0:
            points.append(_onwards(points[-1], base, base, steps))
            continue
        anchors = words[candidates]
        targets = _onwards(words[word], anchors, base, steps)
        cost = (anchors != targets).sum(-1) if strategy == "maxcount" else (anchors - targets).square().sum(-1)
        word = int(candidates[cost.argmin()])
        passed.add(word)
        points.append(_onwards(points[-1], words[word], base, steps))
    return torch.stack([*points, base])


def _onwards(now: torch.Tensor, anchor: torch.Tensor, base: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the anchor, with a step towards the baseline in the dimensions where it would turn back or overshoot."""
    between = (anchor - now) * (anchor - base) <= 0
    return torch.where(between, anchor, now + (base - now) / steps)
