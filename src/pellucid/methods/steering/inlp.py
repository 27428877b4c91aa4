"""INLP: erase a concept by projecting away what one linear classifier after the other finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.erased import eraser_result, labelled
from pellucid.engine.erasure import null_space_eraser
from pellucid.models.subject import Subject


@method(
    rows=("N-ST8",),
    paper="arXiv:2004.07667",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def inlp(
    subject: Subject, prompts: Sequence[Any], labels: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, position: int | str = -1, rounds: Positive = 32,
    strength: PositiveFloat = 1.0,
) -> Learned:  # fmt: skip
    """Learn, for each layer, the orthogonal projection that classifiers of the labels, one after the other, leave.

    Each round fits a logistic regression on what is left and takes the directions of its weights away, until it does no
    better than always naming the largest class (Ravfogel et al. 2020, arXiv:2004.07667). An approximation that may
    take many directions; `leace` takes the fewest. `Steering` applies it.

    Args:
        subject: the model, from `pellucid.load`.
        prompts: texts, chats or token ids.
        labels: a class for each prompt.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean".
        rounds: at most so many.
        strength: of the data against the penalty of the classifier, scikit-learn's C.

    Returns:
        Learned as of `leace`, `means` being zero; the evidence has the accuracy of each round.

    Raises:
        InputError: not one label per prompt, or one class only.
        SiteError: a site that the model lacks.
    """
    read, classes = labelled(subject, prompts, labels, site, layers, position)
    found = [null_space_eraser(rows, classes, rounds=rounds, strength=strength) for rows in read.values]
    longest = max(len(accuracies) for _, accuracies in found)
    told = {
        f"layer {layer}": (*accuracies, *[float("nan")] * (longest - len(accuracies)))
        for layer, (_, accuracies) in zip(read.layers, found, strict=True)
    }
    majority = float(np.unique(classes, return_counts=True)[1].max() / len(classes))
    rounds_told = Evidence(
        "accuracy by round",
        f"The classifiers end at {', '.join(f'{100 * a[-1]:.1f} %' for _, a in found)} after "
        f"{', '.join(str(len(a)) for _, a in found)} rounds in the layers {', '.join(map(str, read.layers))} (always "
        f"the largest class: {100 * majority:.1f} %).",
        {"majority": majority, "rounds": float(longest)},
        {"x": tuple(float(i) for i in range(longest)), **told},
        ok=all(a[-1] <= majority for _, a in found),
    )
    return eraser_result("INLP", read, classes, [eraser for eraser, _ in found], rounds_told)
