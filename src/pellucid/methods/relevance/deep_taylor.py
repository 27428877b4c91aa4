"""Deep Taylor decomposition: each step is expanded around the nearest point where its supporters are gone."""

from __future__ import annotations

from pellucid.core.metadata import method
from pellucid.core.params import Normalise, PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.engine.relevance import conservation, relevance
from pellucid.engine.rules import Rules
from pellucid.models.subject import Subject


@method(
    rows=("FAD-2",),
    paper="arXiv:1512.02479",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="3*F+targets*B",
)
def deep_taylor(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the target among the units by Taylor expansions, step by step, at points where each step gives nothing.

    R_i = sum_k dR_k/dx_i (root) * (x_i - root_i). The root of an output lies on the line that takes away the inputs
    contributing with the output's sign, so R_i is in proportion to these alone: the z+ rule where inputs are not
    negative, and its mirror image for negative outputs, which transformers have. Patterns and the divisors of norms are
    taken as given. For one logit no score has the other sign, mixtures of experts aside. Conserves: scores, other
    tokens and constants sum to the logit (Montavon et al. 2017, arXiv:1512.02479).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A log-prob starts as its gradient times the logits.
        contrast: the alternative to compare with; its relevance is subtracted.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    found = relevance(question, Rules(linear="supporters"))
    scores = normalised(per_unit(found.by_position(), question.units), normalise)
    result = question.answer(scores, "Deep Taylor decomposition", sign="the share of the logit, with the logit's sign")
    return result.with_evidence(conservation(found, question.subject, conserving=True))
