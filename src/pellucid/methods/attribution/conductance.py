"""Conductance: integrated gradients read off inside the model, at neurons, heads or the residual stream."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Positive, PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.capture import expand, part_name
from pellucid.engine.question import ask
from pellucid.engine.site_gradients import gradients_at, stacked, summed, values_at_sites
from pellucid.models.subject import Subject

CUTS = ("resid_pre", "resid_mid", "resid_post")


@method(
    rows=("FAG-8",),
    paper="arXiv:1805.12233",
    takes="prompt",
    produces="scores",
    axes=("layer", "neuron"),
    needs=("gradients", "activations"),
    cost="(2*steps+5)*F+steps*targets*B",
)
def conductance(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    site: SiteName = "mlp.post", baseline: Baseline = "zero", steps: Positive = 32,
) -> Scores:  # fmt: skip
    """Share the change of the target between a baseline and the input among the places of a site, in every layer.

    Cond_h = sum_i (e - e')_i * integral of df/dh * dh/de_i = integral of df/dh dh along the straight line of the
    embeddings, with df/dh in the middle of each step of h; summed over what shares a head, a neuron or else a position.
    Positive raises the target. The residual stream of a layer carries everything, so there the scores of each layer sum
    to f(e) - f(e') up to the quadrature, with the gap in the evidence (Dhamdhere et al. 2018, arXiv:1805.12233;
    Lundstrom et al. 2022, arXiv:2202.11912).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        site: the part of a block, such as "mlp.post", "attn.z" or "resid_pre", in every layer.
        baseline: "zero", "mean", "mask", "pad", a token id, or embeddings ([dimension] or [positions, dimension]).
        steps: equal intervals of the path.

    Returns:
        Scores [layer, neuron], [layer, head] or [layer, position]; with [target] behind it for a target with `each`.

    Raises:
        SiteError: a site that the model lacks, such as neurons in a mixture of experts.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    subject, readout = question.subject, question.readout
    names = expand(subject, part_name(subject, site))
    end = question.embeddings()
    start = question.baseline(baseline, end)
    path = start + torch.linspace(0, 1, steps + 1).to(end).view(-1, 1, 1) * (end - start)
    scores, values = values_at_sites(subject, question.tokens, readout, path, names)
    # The middles keep away from the ends: at a baseline of zero, a norm's gradient is huge.
    _, found = gradients_at(subject, question.tokens, readout, (path[1:] + path[:-1]) / 2, names)
    axis, rows = "", []
    for name in names:
        moved = values[name][1:] - values[name][:-1]
        axis, row = summed((found[name].gradients * moved[:, None]).sum(0), name)
        rows.append(row.numpy())
    grid = np.moveaxis(stacked(rows), 1, -1)
    result = Scores(
        title=f"Conductance at {site}",
        values=grid if readout.each else grid[..., 0],
        axes=("layer", axis, "target") if readout.each else ("layer", axis),
        labels={"target": readout.labels} if readout.each else {},
        unit=readout.unit,
        tokens=question.tokens,
        target=readout.description,
    )
    if parse_site(names[0]).part not in CUTS:
        return result
    return result.with_evidence(_complete(grid, (scores[-1] - scores[0]).double().cpu().numpy()))


def _complete(grid: np.ndarray, change: np.ndarray) -> Evidence:
    gaps = np.abs(grid.sum(1) - change)
    layer, target = np.unravel_index(gaps.argmax(), gaps.shape)
    share = float(gaps.max() / max(abs(change[target]), 1e-9))
    return Evidence(
        "completeness",
        f"In every layer the scores add up to the change between the input and the baseline within {gaps.max():.2g} "
        f"({100 * share:.2g} % of it, in layer {layer}).",
        {"residual": float(gaps.max()), "relative": share, "difference": float(change[target])},
        ok=bool(share < 0.05 or gaps.max() < 1e-3),
    )
