"""Contextual decomposition (CD-T): the part of the output that one unit, or one head, brings about."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pellucid.core.axes import Site
from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.decomposition import decomposed
from pellucid.engine.question import Question, ask, normalised
from pellucid.engine.variants import token_site
from pellucid.models.layout import main_stack
from pellucid.models.subject import Subject


@method(
    rows=("N-AT8",),
    paper="arXiv:2407.00886",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("activations", "weights"),
    cost="max(units, layers*heads)*2*F+2*F",
)
def contextual_decomposition(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", sources: Literal["units", "heads"] = "units",
    activation: Literal["last", "average"] = "last", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Split every activation into what comes from a source and the rest, and read the source's part of the target.

    beta + gamma = activation at every step. Linear: W beta + b |W beta| / (|W beta| + |W gamma|); activation:
    f(beta + gamma) - f(gamma), or the mean of that and f(beta) - f(0); attention patterns and the divisors of norms are
    those of the total. Positive raises the target. One part and its rest sum to the target, but the parts of several
    sources do not add up, as each is split from all others. An approximation of the source's effect; without the
    authors' rounding of parts of opposite sign (Hsu et al. 2024, arXiv:2407.00886; Murdoch et al. 2018).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A log-prob is taken to first order.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        sources: whose part is followed: the embeddings of each unit, or the output of each head, at all positions.
        activation: "last" or "average".
        normalise: scale of the scores.

    Returns:
        Scores [unit] or, for heads, [layer, head]; with [target] behind it for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    heads = sources == "heads"
    places, shape = _heads(question) if heads else (_units(question), (len(question.units),))
    found = decomposed(question.subject, question.tokens, question.readout, places, activation)
    values = normalised(found.double().cpu().numpy(), normalise)
    if not heads:
        return question.answer(values, "Contextual decomposition")
    readout = question.readout
    return Scores(
        title="Contextual decomposition of heads",
        values=values.reshape(*shape, readout.size) if readout.each else np.reshape(values[:, 0], shape),
        axes=("layer", "head", "target") if readout.each else ("layer", "head"),
        labels={"target": readout.labels} if readout.each else {},
        unit=readout.unit,
        tokens=question.tokens,
        target=readout.description,
    )


def _units(question: Question) -> list[tuple[str, dict[str, Any]]]:
    site = token_site(question.subject)
    return [(site, {"position": tuple(range(start, end))}) for start, end in question.units.spans]


def _heads(question: Question) -> tuple[list[tuple[str, dict[str, Any]]], tuple[int, int]]:
    subject = question.subject
    name = main_stack(subject.need_layout())
    shape = (subject.layers, subject.need_layout().stacks[name].heads.query)
    places = [(str(Site(name, layer, "attn.z")), {"head": head}) for layer, head in np.ndindex(shape)]
    return places, shape
