"""Inference-time intervention (ITI): shift the attention heads whose outputs tell true from false."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PositiveFloat
from pellucid.core.results import Learned
from pellucid.engine.directions import contrast
from pellucid.engine.head_probes import head_result, probed_heads
from pellucid.models.subject import Subject


@method(
    rows=("STR-1",),
    paper="arXiv:2306.03341",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def inference_time_intervention(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, heads: Positive = 48,
    layers: Sequence[int] | None = None, position: int | str = -1, strength: PositiveFloat = 1.0,
    test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Find the heads whose output at one position tells two sets of prompts apart, and the direction to shift them in.

    A logistic probe per head, all fitted in one batched Newton iteration; the heads whose probes are right most often
    on prompts held out are chosen. Each has the direction theta from the mean of the negative to that of the positive
    prompts (the paper's mass-mean shift) and sigma, the spread of all prompts along it; `Steering` adds
    coefficient * sigma * theta to the head's output, before the output projection (Li et al. 2023, arXiv:2306.03341).
    Probes are exact to the optimum; the choice has the error of the prompts held out.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts with the property, such as questions with a true answer.
        negative: prompts without it.
        heads: how many to choose (at most all).
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".
        strength: of the data against the probes' penalty, scikit-learn's C.
        test_share: share of the prompts that only test; with too few prompts the probes are judged on their own.
        seed: of the split.

    Returns:
        Learned at "attn.z" with `directions` [layer, head, width], `scales` [layer, head] (sigma), `probes` and
        `biases`; the setting `heads` lists the chosen (layer, head). The evidence has their accuracy.

    Raises:
        InputError: an empty set, or heads that the sets do not move.
        SiteError: a layer that the model lacks.
    """
    data = contrast(
        subject, positive, negative, "attn.z", layers=layers, position=position, test_share=test_share, seed=seed
    )
    found = probed_heads(data.read.values, data.labels, data.held, strength)
    gaps = data.positive.mean(1) - data.negative.mean(1)
    directions = gaps / np.maximum(np.linalg.norm(gaps, axis=-1, keepdims=True), 1e-30)
    spread = np.einsum("lphw,lhw->lph", data.read.values[:, ~data.held], directions).std(1)
    return head_result(
        "Inference-time intervention", data, found, heads, directions, spread, settings={"strength": strength}
    )
