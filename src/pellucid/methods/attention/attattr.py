"""AttAttr: integrated gradients of attention weights, from no attention to the model's own, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pellucid.core.errors import TargetError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, PromptLike, Quadrature, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.cone import score_edits
from pellucid.engine.patterns import mean_gradient, pattern_sites
from pellucid.engine.quadrature import nodes
from pellucid.engine.question import ask
from pellucid.engine.site_gradients import stacked
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("ATT-7",),
    paper="arXiv:2004.11207",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("gradients", "attention"),
    cost="layers*steps*(F+B)+(layers+2)*F",
)
def attattr(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    view: Literal["heads", "pairs", "tree"] = "heads", layers: Sequence[int] | None = None, steps: Positive = 20,
    quadrature: Quadrature = "gauss_legendre", threshold: Fraction = 0.4,
) -> Scores:  # fmt: skip
    """Share what a layer's attention does for the target among its weights.

    Attr_h = A_h * integral over a in [0, 1] of dF/dA_h (a A), with all heads of one layer scaled by a and the other
    layers left to follow. Over all heads, queries and keys of a layer the attributions sum to F(A) - F(0), the effect
    of switching that layer's attention off, up to the quadrature; the gap is in the evidence. Positive raises the
    target (Hao et al. 2021, arXiv:2004.11207, who sum 20 right Riemann steps).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        prompt: text, chat or token ids.
        target: what to explain, one number; None means what the model predicts.
        contrast: the alternative to compare with, one token as the target.
        view: "heads" gives each head's importance, its largest attribution on this prompt (the paper takes the mean
            over prompts); "pairs" the attributions summed over heads; "tree" the pairs of the attribution tree, zero
            elsewhere: from the token with the largest attributions to others over all layers, downwards, a token joins
            where one of the tree first points to it by more than `threshold` of the layer's largest attribution.
        layers: the blocks that are attributed; None means all.
        steps: nodes of the quadrature.
        quadrature: "gauss_legendre", "trapezoid", "riemann_left", "riemann_right" or "riemann_middle".
        threshold: share of the layer's largest attribution that an edge of the tree must exceed.

    Returns:
        Scores [layer, head] or [layer, query, key] (queries and keys of the prompt).

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a target with `each`, or a contrast between continuations that are fed in differently.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    readout, length = question.readout, len(question.tokens)
    if readout.each:
        raise TargetError(
            f"AttAttr explains one number, but {readout.description} is {readout.size} targets; leave `each` out or "
            "name one of them."
        )
    sites = pattern_sites(subject, layers)
    places, weights = nodes(quadrature, steps)
    slopes = [mean_gradient(question, site, places, weights) for site in sites]
    maps = [pattern * slope[0] for pattern, slope in slopes]
    ends = score_edits(subject, question.tokens, readout, [(), *((Edit(site, "zero"),) for site in sites)])[:, 0]
    if view == "heads":
        values = stacked([attribution.amax((1, 2)).numpy() for attribution in maps])
    else:
        values = np.stack([attribution[:, :length, :length].sum(0).numpy() for attribution in maps])
        values = _tree(values, threshold) if view == "tree" else values
    return Scores(
        title={"heads": "Head importance", "pairs": "Attention attribution", "tree": "Attribution tree"}[view],
        values=values,
        axes=("layer", "head") if view == "heads" else ("layer", "query", "key"),
        labels={"layer": tuple(site.split(".")[-3] for site in sites)},
        unit=readout.unit,
        tokens=question.tokens,
        target=readout.description,
        evidence=(_complete(np.array([float(a.sum()) for a in maps]), ends[0] - ends[1:]),),
    )


def _tree(pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Return the attributions [layer, query, key] of the tree's edges, zero elsewhere; each key joins once."""
    to_others = pairs.sum(0) * (1 - np.eye(pairs.shape[1]))
    inside = {int(to_others.sum(1).argmax())}
    kept = np.zeros_like(pairs)
    for layer in reversed(range(len(pairs))):
        strongest = pairs[layer].max()
        joined = set[int]()
        for key in set(range(pairs.shape[2])) - inside:
            query = max(inside, key=lambda q: pairs[layer, q, key])
            if pairs[layer, query, key] > threshold * strongest > 0:
                kept[layer, query, key] = pairs[layer, query, key]
                joined.add(key)
        inside |= joined
    return kept


def _complete(sums: np.ndarray, changes: np.ndarray) -> Evidence:
    gaps = np.abs(sums - changes)
    layer = int(gaps.argmax())
    share = float(gaps[layer] / max(abs(changes[layer]), 1e-9))
    return Evidence(
        "completeness",
        f"In every layer the attributions add up to the effect of its attention, F(A) - F(0), within {gaps.max():.2g} "
        f"({100 * share:.2g} % of it).",
        {"residual": float(gaps.max()), "relative": share, "difference": float(changes[layer])},
        {"x": tuple(float(k) for k in range(len(sums))), "sum": tuple(sums.tolist()),
         "effect": tuple(changes.tolist())},
        ok=bool(share < 0.05 or gaps.max() < 1e-3),
    )  # fmt: skip
