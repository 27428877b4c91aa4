"""Transformer attribution: attention weighted by relevance and gradient, multiplied through the layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import numpy as np

from pellucid.core.axes import Site
from pellucid.core.errors import TargetError
from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import Question, ask, normalised, per_unit, read_position
from pellucid.engine.relevance import propagated, relevance
from pellucid.engine.rules import Absorbed, Rules
from pellucid.models.layout import depth
from pellucid.models.subject import Subject


@method(
    rows=("FAD-5",),
    paper="arXiv:2012.09838",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients", "attention"),
    cost="4*F+2*targets*B",
)
def transformer_attribution(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", weight: Literal["relevance", "attention"] = "relevance", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Score each unit by the relevance that reaches the output position through the attention of all layers.

    C = A_L ... A_1 with A_l = I + mean over heads of max(0, gradient of the pattern * relevance of the pattern); the
    row of the position that is read, without the identity's own part. Relevance by LRP (alpha 1, beta 0, products in
    halves), or the pattern itself with weight="attention". In encoder-decoders, cross attention carries the decoder's
    row to the encoder. Never negative. A heuristic: the scores sum to nothing in particular (Chefer et al. 2021,
    arXiv:2012.09838; for cross attention and weight="attention", Chefer et al. 2021, arXiv:2103.15679).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with, one token as the target.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        weight: what the gradient of a pattern is multiplied by.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.

    Raises:
        TargetError: a contrast between continuations that are fed in differently.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    if len(question.readout.forced) > 1:
        raise TargetError(
            f"transformer_attribution follows one run, but {question.readout.description} needs two; contrast single "
            "tokens."
        )
    sites = _patterns(question.subject)
    plain = propagated(question, nullcontext(Absorbed()), sites).sites
    shared = relevance(question, Rules("alpha_beta", alpha=1.0), sites).sites if weight == "relevance" else {}
    columns = []
    for column in range(question.readout.size):
        cams: dict[str, np.ndarray] = {}
        for site in sites:
            pattern, gradient = plain[site][0]
            factor = shared[site][0][1][column] * shared[site][0][0] if shared else pattern
            cams[site] = (gradient[column] * factor).clamp(min=0).mean(0).double().cpu().numpy()
        columns.append(_row(question, cams, column))
    scores = per_unit(np.stack(columns, 1), question.units)
    sign = "larger means more relevance reaches the output through attention"
    return question.answer(normalised(scores, normalise), "Transformer attribution", unit="relevance", sign=sign)


def _patterns(subject: Subject) -> list[str]:
    layout = subject.need_layout()
    return [
        str(Site(name, layer, f"{kind}.pattern"))
        for name, stack in layout.stacks.items()
        for layer in range(depth(subject.model, layout, name))
        for kind in (["attn", "cross_attn"] if stack.cross_attention else ["attn"])
    ]


def _row(question: Question, cams: Mapping[str, np.ndarray], column: int) -> np.ndarray:
    """Return the row of the output position over the prompt."""
    length, subject = len(question.tokens), question.subject
    readout = question.readout
    own = _rollout([cam for site, cam in cams.items() if not site.startswith("decoder.")])
    if subject.kind != "encoder-decoder":
        if subject.head == "none":
            return own.mean(0)[:length]
        first = read_position(question)
    else:
        own, first = _across(cams, own + np.eye(len(own))), 0
    last = first + len(readout.parts[0].ids) if readout.kind == "next" else first + 1
    rows = own[first + column : first + column + 1] if readout.each else own[first:last]
    return rows.mean(0)[:length]


def _rollout(cams: list[np.ndarray]) -> np.ndarray:
    total = np.eye(len(cams[0]))
    for cam in cams:
        total = total + cam @ total
    return total - np.eye(len(total))


def _across(cams: Mapping[str, np.ndarray], encoder: np.ndarray) -> np.ndarray:
    """Return the relevance of the encoder's tokens for the decoder's: [decoder positions, encoder positions]."""
    layers = {site: cam for site, cam in cams.items() if site.startswith("decoder.")}  # own and cross, layer by layer
    own = np.eye(len(next(iter(layers.values()))))
    cross = np.zeros((len(own), len(encoder)))
    for site, cam in layers.items():
        if "cross_attn" in site:
            cross = cross + _scaled(own).T @ cam @ _scaled(encoder)
        else:
            own, cross = own + cam @ own, cross + cam @ cross
    return cross


def _scaled(relevance: np.ndarray) -> np.ndarray:
    """Scale the rows of the relevance beyond the identity to sum to 1, and put the identity back."""
    beyond = relevance - np.eye(len(relevance))
    total = beyond.sum(1, keepdims=True)
    return np.divide(beyond, total, out=np.zeros_like(beyond), where=total != 0) + np.eye(len(relevance))
