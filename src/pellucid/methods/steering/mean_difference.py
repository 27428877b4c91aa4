"""Mean difference (contrastive activation addition): from prompts without a property to prompts with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, SiteName
from pellucid.core.results import Learned
from pellucid.engine.directions import contrast, learned_direction
from pellucid.models.subject import Subject


@method(
    rows=("N-ST1",),
    paper="arXiv:2312.06681",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def mean_difference(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, position: int | str = -1, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Read the direction that leads, in each layer, from prompts without a property to prompts with it.

    v_l = mean h_l(positive) - mean h_l(negative) at one position, as a unit vector; its sign says where the property
    lies. Exact. For CAA give questions that end in the answer that shows the behaviour, and the same questions with the
    other answer (Rimsky et al. 2024, arXiv:2312.06681); `Steering` adds the direction in units of the mean norm.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts with the property.
        negative: prompts without it; equally many are taken as pairs.
        site: a part of the residual stream, such as "resid_post".
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean" over the prompt.
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned with `directions` [layer, dimension], `scales` [layer] (mean norms) and `offsets` [layer] (the
        projection half-way between both sets); the evidence says how well each layer parts prompts held out.

    Raises:
        InputError: an empty set, or sets that the model does not tell apart.
        SiteError: a site that the model lacks.
    """
    data = contrast(
        subject, positive, negative, site, layers=layers, position=position, test_share=test_share, seed=seed
    )
    return learned_direction("Mean difference", data, data.positive.mean(1) - data.negative.mean(1), seed=seed)
