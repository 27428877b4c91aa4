"""Layer gradient x activation: the target's first-order change if a value inside the model went to zero, turned."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import expand, part_name
from pellucid.engine.question import ask
from pellucid.engine.site_gradients import gradients_at, stacked, summed
from pellucid.models.subject import Subject


@method(
    rows=("STD-layer-gradient-x-activation",),
    paper="arXiv:1605.01713",
    takes="prompt",
    produces="scores",
    axes=("layer", "position"),
    needs=("gradients", "activations"),
    cost="3*F+targets*B",
)
def layer_gradient_x_activation(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    site: SiteName = "resid_pre",
) -> Scores:  # fmt: skip
    """Score every place of a site in every layer by its value times the target's gradient.

    R = sum h * df/dh over what shares a head, a neuron or else a position; positive raises the target. Approximation of
    setting the place to zero, to first order; all layers in one backward pass (Shrikumar et al. 2016,
    arXiv:1605.01713).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        site: the part of a block, such as "resid_pre", "attn.z", "mlp.post" or "attn.pattern", in every layer.

    Returns:
        Scores [layer, position], or [layer, head] and [layer, neuron] for sites with heads or neurons, summed over
        positions; with [target] behind it for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    subject = question.subject
    names = expand(subject, part_name(subject, site))
    points = question.embeddings()[None]
    _, found = gradients_at(subject, question.tokens, question.readout, points, names)
    axis, rows = "", []
    for name in names:
        axis, row = summed(found[name].values[:, None] * found[name].gradients, name)
        rows.append(row[0].numpy())
    values = np.moveaxis(stacked(rows), 1, -1)
    readout = question.readout
    return Scores(
        title=f"Gradient x activation at {site}",
        values=values if readout.each else values[..., 0],
        axes=("layer", axis, "target") if readout.each else ("layer", axis),
        labels={"target": readout.labels} if readout.each else {},
        unit=readout.unit,
        tokens=question.tokens,
        target=readout.description,
    )
