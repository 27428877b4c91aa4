"""LEACE: erase a concept from activations in closed form, changing them as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import method
from pellucid.core.params import SiteName
from pellucid.core.results import Learned
from pellucid.engine.erased import eraser_result, labelled
from pellucid.engine.erasure import least_squares_eraser
from pellucid.models.subject import Subject


@method(
    rows=("N-ST8",),
    paper="arXiv:2306.03819",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def leace(
    subject: Subject, prompts: Sequence[Any], labels: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, position: int | str = -1,
) -> Learned:  # fmt: skip
    """Learn, for each layer, the affine map after which no linear probe finds the labels.

    r(x) = x - W^+ Q W (x - m) with W = S_xx^(-1/2) and Q the projection onto the columns of W S_xz: of all maps that
    make the cross-covariance zero, the one that moves the prompts' activations least (Belrose et al. 2023,
    arXiv:2306.03819). Exact on the prompts given; what is not linear, or lies at other positions, stays. `Steering`
    applies it.

    Args:
        subject: the model, from `pellucid.load`.
        prompts: texts, chats or token ids; more of them than dimensions say more about other prompts.
        labels: a class for each prompt.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".

    Returns:
        Learned with `projections` [layer, dimension, dimension] and `means` [layer, dimension]; the evidence has the
        accuracy of probes before and after, and the cross-covariance that is left.

    Raises:
        InputError: not one label per prompt, or one class only.
        SiteError: a site that the model lacks.
    """
    read, classes = labelled(subject, prompts, labels, site, layers, position)
    return eraser_result("LEACE", read, classes, [least_squares_eraser(rows, classes) for rows in read.values])
