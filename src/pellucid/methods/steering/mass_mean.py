"""Mass-mean probing: the difference of means as a direction, and tilted by the inverse covariance as a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, NonNegativeFloat, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.directions import area_under_roc, contrast, learned_direction
from pellucid.engine.mass_means import mass_mean_probe
from pellucid.models.subject import Subject


@method(
    rows=("REP-2",),
    paper="arXiv:2310.06824",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def mass_mean(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, position: int | str = -1, shrinkage: NonNegativeFloat = 0.01,
    test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Read true from false (or any property from its lack) as in the geometry of truth.

    theta = mean h(positive) - mean h(negative) is the direction to steer with; the probe is
    p(h) = sigmoid((h - m)' S^-1 theta), with S the covariance within the classes and m the middle of both means, which
    is the best classifier of two Gaussians of that covariance (Marks & Tegmark 2023, arXiv:2310.06824). Closed form;
    S is shrunk by a share of its mean variance, since there are often fewer prompts than dimensions.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts with the property, such as true statements.
        negative: prompts without it.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".
        shrinkage: share of the mean variance that is added to every variance.
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned as of `mean_difference`, with `probes` [layer, dimension] (S^-1 theta) and `biases` [layer].

    Raises:
        InputError: an empty set, or sets that the model does not tell apart.
        SiteError: a site that the model lacks.
    """
    data = contrast(
        subject, positive, negative, site, layers=layers, position=position, test_share=test_share, seed=seed
    )
    found = learned_direction("Mass mean", data, data.positive.mean(1) - data.negative.mean(1), seed=seed)
    fits = [mass_mean_probe(*both, shrinkage) for both in zip(data.positive, data.negative, strict=True)]
    probes, biases = np.stack([w for w, _ in fits]), np.array([b for _, b in fits])
    tested = data.held if data.held.any() else ~data.held
    logits = np.einsum("lpd,ld->lp", data.read.values[:, tested], probes) + biases[:, None]
    labels = data.labels[tested]
    right = ((logits > 0) == labels).mean(1)
    areas = tuple(area_under_roc(labels, one) for one in logits)
    best = int(np.argmax(right))
    told = Evidence(
        "the probe with the covariance",
        f"On {len(labels)} prompts {'held out' if data.held.any() else 'it was learned from'}, the probe is right on "
        f"{100 * right[best]:.1f} % in layer {data.read.layers[best]} (always the larger class: "
        f"{100 * max(labels.mean(), 1 - labels.mean()):.1f} %).",
        {"accuracy": float(right[best]), "majority": float(max(labels.mean(), 1 - labels.mean()))},
        {"x": tuple(map(float, data.read.layers)), "accuracy": tuple(right.tolist()), "area under the curve": areas},
        ok=bool(right[best] > max(labels.mean(), 1 - labels.mean())) if data.held.any() else None,
    )
    return Learned(
        title=found.title,
        tensors={**found.tensors, "probes": probes, "biases": biases},
        apply="direction",
        site=found.site,
        settings=found.settings,
        evidence=(*found.evidence, told),
    )
