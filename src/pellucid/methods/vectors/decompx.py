"""DecompX: every activation as a sum over input tokens, carried through all layers to the logit."""

from __future__ import annotations

from typing import Any, Literal

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.additive import parts_of_output
from pellucid.engine.direct_path import linear_readout
from pellucid.engine.question import Question, ask, normalised, per_unit
from pellucid.methods.vectors._shared import books
from pellucid.models.subject import Subject


@method(
    rows=("FAV-5",),
    paper="arXiv:2306.02873",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("activations", "weights"),
    cost="(tokens+2)*F",
)
def decompx(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", bias: Literal["dot", "norm", "equal", "apart"] = "dot", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share a logit among the tokens by carrying x_i = sum_k x_(i from k) through every layer.

    Token k starts as its vector behind the embedding layer (positions within). Attention patterns and the divisors of
    norms are taken as given, an activation is the factor f(x) / x, a gate and what it gates share their product in
    halves, and a bias b is shared by |x_(i from k) . b| ("dot"), by |x_(i from k)| ("norm") or equally (a joint
    projection of queries, keys and values has one bias). Positive raises the target. Conserves: the scores and those of
    other tokens (special ones, a decoder's start) sum to the logit or difference of logits; with bias="apart" the
    biases are missing, as the evidence says, and the scores are those of LRP at the same vectors. That a token's parts
    are its effect is an approximation. Shared biases need all tokens in one batch, so memory grows with the square of
    the length (Modarressi et al. 2023, arXiv:2306.02873; gates are ours).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain, a token or class; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        bias: how biases are shared.
        normalise: scale of the scores.

    Returns:
        Scores [unit].

    Raises:
        TargetError: a target that is no logit.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    readout = linear_readout(question.readout, "decompx")
    found, values = parts_of_output(question.subject, question.tokens, readout, _sources(question), bias)
    parts, whole = found.double().cpu().numpy(), values.double().cpu().numpy()
    by_position = parts[: len(question.tokens)]
    scores = per_unit(by_position, question.units)
    rest = {"the decoder's start": parts[len(by_position) :].sum(0)} if len(parts) > len(by_position) else {}
    if bias == "apart":
        rest["biases"] = whole - parts.sum(0)
    evidence = books(scores, by_position, rest, whole)
    return question.answer(normalised(scores, normalise), "DecompX").with_evidence(evidence)


def _sources(question: Question) -> list[tuple[str, dict[str, Any]]]:
    """Return the vectors behind the embedding layer, position by position."""
    positions = range(len(question.tokens))
    if question.subject.kind != "encoder-decoder":
        return [("embed", {"position": p}) for p in positions]
    return [*(("encoder.embed", {"position": p}) for p in positions), ("decoder.embed", {"position": 0})]
