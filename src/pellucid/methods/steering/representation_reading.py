"""Representation reading (LAT): the main axis of the differences between paired prompts, or of two clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, SiteName
from pellucid.core.results import Learned
from pellucid.engine.directions import contrast, learned_direction
from pellucid.models.subject import Subject


@method(
    rows=("REP-1",),
    paper="arXiv:2310.01405",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def representation_reading(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *,
    reading: Literal["pca", "kmeans"] = "pca", site: SiteName = "resid_post", layers: Sequence[int] | None = None,
    position: int | str = -1, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Read the axis along which paired prompts differ most (linear artificial tomography).

    "pca": the first principal component of the differences h(positive) - h(negative), each taken with a random sign so
    that their mean does not matter, as in the paper (Zou et al. 2023, arXiv:2310.01405); exact, by the small Gram
    matrix. "kmeans": from one centre to the other of two clusters of all prompts; a local optimum. Neither sees the
    labels, which only turn the axis so that the positive prompts lie higher on average.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts with the property.
        negative: prompts without it, one for each positive prompt.
        reading: "pca" or "kmeans".
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".
        test_share: share of the pairs that only test.
        seed: of split, signs and clusters.

    Returns:
        Learned as of `mean_difference`; the evidence says how well each layer parts prompts held out.

    Raises:
        InputError: sets of different size for "pca", an empty set, or sets that the model does not tell apart.
        SiteError: a site that the model lacks.
    """
    if reading == "pca" and len(positive) != len(negative):
        raise InputError(
            f"representation_reading by PCA takes pairs, but got {len(positive)} positive and {len(negative)} negative "
            "prompts; give one for each, or reading='kmeans'."
        )
    data = contrast(
        subject, positive, negative, site, layers=layers, position=position, test_share=test_share, seed=seed
    )
    one, none = data.positive, data.negative
    rng = np.random.default_rng(seed)
    if reading == "pca":
        signs = rng.choice([-1.0, 1.0], size=one.shape[1])
        axes = np.stack([_main_axis(gaps * signs[:, None]) for gaps in one - none])
    else:
        axes = np.stack([_between_clusters(np.concatenate(both), seed) for both in zip(one, none, strict=True)])
    turned = np.sign(np.einsum("ld,ld->l", axes, one.mean(1) - none.mean(1)))
    title = "Representation reading by " + ("principal component" if reading == "pca" else "two clusters")
    return learned_direction(title, data, axes * np.where(turned == 0, 1.0, turned)[:, None], seed=seed)


def _main_axis(gaps: np.ndarray) -> np.ndarray:
    """Return the first principal component of rows [n, dimension], centred; of a single row the row itself."""
    centred = gaps - gaps.mean(0) if len(gaps) > 1 else gaps
    wide = centred.astype(np.float64)
    _, vectors = np.linalg.eigh(wide @ wide.T)
    return wide.T @ vectors[:, -1]


def _between_clusters(rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    centres = KMeans(2, n_init=10, random_state=seed).fit(rows.astype(np.float64)).cluster_centers_
    found: np.ndarray = centres[1] - centres[0]
    return found
