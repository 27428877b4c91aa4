"""Detached Jacobian: with its gates held still the model is linear at its input, and that map is read off."""

from __future__ import annotations

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.engine.relevance import conservation, relevance
from pellucid.engine.rules import Rules
from pellucid.models.subject import Subject


@method(
    rows=("N-AT9",),
    paper="arXiv:2505.24293",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="3*F+targets*B",
)
def detached_jacobian(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the target among the units by the linear map that the model is at this input with its gates held still.

    R_i = J_i e_i, where J is the Jacobian with patterns, the divisors of norms and gates (an activation f(x) as the
    factor f(x) / x, the gated branch of a feed-forward layer whole) taken as constants. Positive raises the target.
    Exact: f(e) = J e + constants for logits and their differences, so that without biases and position embeddings the
    scores of all tokens sum to the logit (Golden 2025, arXiv:2505.24293).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A log-prob starts as its gradient times the logits.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    found = relevance(question, Rules(product="detach_gate"))
    scores = normalised(per_unit(found.by_position(), question.units), normalise)
    books = conservation(found, question.subject, conserving=True)
    return question.answer(scores, "Detached Jacobian x input").with_evidence(books)
