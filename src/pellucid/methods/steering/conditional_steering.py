"""Conditional steering (CAST): the direction, layer and threshold that decide which prompts are steered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.directions import contrast, unit
from pellucid.engine.steering import condition_scores
from pellucid.models.subject import Subject


@method(
    rows=("N-ST3",),
    paper="arXiv:2409.05907",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def conditional_steering(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn which prompts to steer: those whose mean activation points along a direction by more than a threshold.

    For each layer c is the difference between the mean activations of prompts to steer and others, averaged over all
    tokens; the condition is cos(mean h, c) > t, in the layer and at the threshold of largest F1 on the prompts learned
    from. `Steering(..., condition=...)` then acts on such prompts alone, for their whole generation (Lee et al. 2024,
    arXiv:2409.05907, which compares h with its projection on c after a tanh, and finds c by principal components). The
    choice is exact on these prompts.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts that should be steered.
        negative: prompts that should be left alone.
        site: a part of the residual stream.
        layers: which blocks may be read, not above those that are steered; None means all.
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned with `directions` and `scales`; settings `layer`, `threshold` and `above`; the evidence has F1.

    Raises:
        InputError: an empty set, or sets that the model does not tell apart.
        SiteError: a site that the model lacks.
    """
    data = contrast(subject, positive, negative, site, layers=layers, position="mean", test_share=test_share, seed=seed)
    directions = unit(data.positive.mean(1) - data.negative.mean(1))
    cosines = np.stack([
        condition_scores(torch.as_tensor(rows), torch.as_tensor(c).to(torch.as_tensor(rows))).numpy()
        for rows, c in zip(data.read.values, directions, strict=True)
    ])  # fmt: skip
    learned, labels = ~data.held, data.labels
    best = [_threshold(one[learned], labels[learned]) for one in cosines]
    at = int(np.argmax([score for score, _ in best]))
    threshold, tested = best[at][1], data.held if data.held.any() else learned
    open_ = cosines[at] > threshold
    rates = [float(open_[tested & (labels == label)].mean()) for label in (1, 0)]
    f1 = _f1(open_[tested], labels[tested])
    check = Evidence(
        "which prompts are steered",
        f"In layer {data.read.layers[at]} with a cosine above {threshold:.3f}, {100 * rates[0]:.0f} % of the prompts "
        f"to steer and {100 * rates[1]:.0f} % of the others would be steered, of {int(tested.sum())} prompts "
        f"{'held out' if data.held.any() else 'learned from'} (F1 {f1:.3f}, steering all "
        f"{_f1(np.ones(int(tested.sum()), dtype=bool), labels[tested]):.3f}).",
        {"f1": f1, "steered": rates[0], "others": rates[1], "threshold": threshold},
        {"x": tuple(map(float, data.read.layers)), "F1 learned from": tuple(float(score) for score, _ in best)},
    )
    return Learned(
        title="Condition for steering",
        tensors={"directions": directions, "scales": data.read.norms},
        apply="direction",
        site=data.read.site,
        settings={
            "layers": list(data.read.layers), "layer": data.read.layers[at], "threshold": threshold, "above": True,
        },
        evidence=(check,),
    )  # fmt: skip


def _threshold(cosines: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the largest F1 and the threshold that gives it, half-way between two neighbouring values."""
    ordered = np.unique(cosines)
    candidates = [ordered[0] - 1e-6, *((ordered[:-1] + ordered[1:]) / 2)]
    scores = [_f1(cosines > t, labels) for t in candidates]
    best = int(np.argmax(scores))
    return float(scores[best]), float(candidates[best])


def _f1(steered: np.ndarray, labels: np.ndarray) -> float:
    right = float((steered & (labels == 1)).sum())
    return 2 * right / max(float(steered.sum() + (labels == 1).sum()), 1.0)
