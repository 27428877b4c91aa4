"""Activation capping: keep the projection on an axis from falling below what is usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.directions import contrast, learned_direction
from pellucid.models.subject import Subject


@method(
    rows=("N-ST7",),
    paper="arXiv:2601.10387",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def activation_capping(
    subject: Subject, usual: Sequence[Any], unusual: Sequence[Any], *, quantile: Fraction = 0.25,
    site: SiteName = "resid_post", layers: Sequence[int] | None = None, position: int | str = "mean",
    test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn the axis from unusual to usual behaviour (the assistant axis) and how low its projection usually lies.

    v_l = mean h_l(usual) - mean h_l(unusual), as a unit vector, and t_l the quantile of the projections of the usual
    prompts. `Steering(..., operation="cap")` then makes h <- h - v min(h.v - t, 0): nothing changes above t, and what
    falls below is lifted to t (Lu et al. 2026, arXiv:2601.10387). Exact.

    Args:
        subject: the model, from `pellucid.load`.
        usual: prompts (with replies) in which the model is as it should be.
        unusual: prompts in which it plays other roles.
        quantile: of the usual projections; 0.25 touches a quarter of what is usual.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned as of `mean_difference`, with `thresholds` [layer]; the evidence says how many prompts of each set lie
        below the threshold.

    Raises:
        InputError: an empty set, or sets that the model does not tell apart.
        SiteError: a site that the model lacks.
    """
    data = contrast(subject, usual, unusual, site, layers=layers, position=position, test_share=test_share, seed=seed)
    gaps = data.positive.mean(1) - data.negative.mean(1)
    found = learned_direction("Activation capping", data, gaps, seed=seed)
    projected = np.einsum("lpd,ld->lp", data.read.values, found.tensors["directions"])
    thresholds = np.quantile(projected[:, (data.labels == 1) & ~data.held], quantile, axis=1)
    at = data.read.layers.index(found.settings["layer"])
    tested = data.held if data.held.any() else ~data.held
    below = [float((projected[at, tested & (data.labels == label)] < thresholds[at]).mean()) for label in (1, 0)]
    check = Evidence(
        "what the cap touches",
        f"In layer {found.settings['layer']}, {100 * below[0]:.0f} % of the usual and {100 * below[1]:.0f} % of the "
        f"unusual prompts {'held out' if data.held.any() else 'learned from'} lie below the threshold "
        f"{thresholds[at]:.3g} and would be lifted.",
        {"usual": below[0], "unusual": below[1], "threshold": float(thresholds[at])},
    )
    return replace(
        found, tensors={**found.tensors, "thresholds": thresholds}, evidence=(*found.evidence, check)
    )  # fmt: skip
