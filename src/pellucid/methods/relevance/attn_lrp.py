"""AttnLRP: relevance that also goes through the attention pattern, in one backward pass."""

from __future__ import annotations

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.engine.relevance import conservation, relevance
from pellucid.engine.rules import Rules
from pellucid.models.subject import Subject


@method(
    rows=("N-AT1",),
    paper="arXiv:2402.05602",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="3*F+targets*B",
    patent="Its authors say that this method is patented and free of charge for personal and scientific use only; "
    "ask them before any other use.",
)
def attn_lrp(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", epsilon: NonNegativeFloat = 0.0, normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the target among the units by relevance that flows through values, queries and keys alike.

    Softmax s of scores x: R_x = x (R_s - s sum R_s); product of matrices O = A B: R_A = A * (R_O / (2 O)) B^T, and the
    same for B; products of entries in halves; norms and activations pass relevance on; linear layers share it in
    proportion. Positive raises the target. The softmax rule is a Taylor expansion whose constant keeps relevance, so
    the scores do not sum to the target: how much is lost, per block, is in the evidence (Achtibat et al. 2024,
    arXiv:2402.05602).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A log-prob starts as its gradient times the logits.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        epsilon: added to the outputs of linear layers, with their sign.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    found = relevance(question, Rules(epsilon=epsilon, softmax="gradient"))
    scores = normalised(per_unit(found.by_position(), question.units), normalise)
    return question.answer(scores, "AttnLRP").with_evidence(conservation(found, question.subject, conserving=False))
