"""Direct logit attribution: what every part of the model writes towards a logit, with no later part in between."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.direct_path import linear_readout
from pellucid.engine.question import ask
from pellucid.engine.site_gradients import stacked
from pellucid.engine.stream_parts import StreamParts, smaller_parts, smaller_sites, stream_parts
from pellucid.models.subject import Subject


@method(
    rows=("TXB-1",),
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
    takes="prompt",
    produces="scores",
    axes=("part",),
    needs=("activations", "gradients", "weights"),
    cost="3*F+B",
)
def direct_logit_attribution(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    parts: Literal["sublayers", "heads", "neurons"] = "sublayers",
) -> Scores:  # fmt: skip
    """Share a logit, or a difference of two, among the parts that wrote the last residual stream.

    c(part) = sum_p (what the part wrote at p) . (W_U[target] through the final norm at its divisor); positive raises
    the target. Exact: the embedding, all parts and the biases of norms and head sum to the logit (difference), which
    the evidence shows. Effects through later blocks are not in it. In post-norm models the norm behind each sub-layer
    is linear too, at its divisor; sub-layer norms count inside the contribution (Elhage et al. 2021; nnterp and
    TransformerLens show the same for single logits).

    Args:
        subject: the model, from `pellucid.load`; of an encoder-decoder, the decoder is taken apart.
        prompt: text, chat or token ids.
        target: what to explain, a token or class; None means what the model predicts.
        contrast: the alternative to compare with.
        parts: "sublayers" (embedding, attention and feed-forward of each layer), "heads" or "neurons".

    Returns:
        Scores [part], [layer, head] or [layer, neuron]; what is not shown is in the evidence.

    Raises:
        TargetError: a target that is no logit, which has no exact sum.
        ModelError: a norm between the parts and the head that is no layer or root-mean-square norm.
        SiteError: neurons of a model whose experts are computed jointly.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    readout = linear_readout(question.readout, "direct_logit_attribution")
    kind = {"heads": "attn", "neurons": "mlp"}.get(parts, "")
    sites = smaller_sites(subject, kind) if kind else []
    shared = stream_parts(subject, question.tokens, readout, sites)
    fields = _smaller(subject, shared, kind) if kind else _sublayers(shared)
    return Scores(
        title=f"Direct logit attribution to {parts}",
        unit=readout.unit,
        tokens=question.tokens,
        target=readout.description,
        **fields,
    )


def _sublayers(shared: StreamParts) -> dict[str, Any]:
    values = np.array([part.effect for part in (shared.start, *shared.parts)])
    names = ("embedding", *(f"{part.layer}.{part.kind}" for part in shared.parts))
    evidence = shared.evidence(float(values.sum()), {})
    return {"values": values, "axes": ("part",), "labels": {"part": names}, "evidence": (evidence,)}


def _smaller(subject: Subject, shared: StreamParts, kind: str) -> dict[str, Any]:
    layers: list[np.ndarray] = []
    apart = {"embedding": shared.start.effect}
    for part in shared.parts:
        if part.kind == kind:
            effects, bias = smaller_parts(subject, shared, part)
            layers.append(effects.cpu().numpy())
            apart["biases of the parts"] = apart.get("biases of the parts", 0.0) + bias
        else:
            apart[part.kind] = apart.get(part.kind, 0.0) + part.effect
    values = stacked(layers)
    evidence = shared.evidence(float(values.sum()), apart)
    axes = ("layer", "head" if kind == "attn" else "neuron")
    return {
        "values": values, "axes": axes, "labels": {"layer": tuple(str(i) for i in range(len(layers)))},
        "evidence": (evidence,),
    }  # fmt: skip
