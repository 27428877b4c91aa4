"""Layer-wise relevance propagation: the target handed back through the layers, each sharing what it was given."""

from __future__ import annotations

from typing import Annotated, Literal

from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Normalise, PositiveFloat, PromptLike, TargetLike, Unit, at_least
from pellucid.core.results import Scores
from pellucid.engine.question import ask, normalised, per_unit
from pellucid.engine.relevance import conservation, relevance
from pellucid.engine.rules import Rules
from pellucid.models.subject import Subject


@method(
    rows=("FAD-1",),
    paper="arXiv:2101.00196",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients",),
    cost="3*F+targets*B",
)
def lrp(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", rule: Literal["epsilon", "gamma", "alpha_beta"] = "epsilon", epsilon: NonNegativeFloat = 0.0,
    gamma: PositiveFloat = 0.25, alpha: Annotated[float, at_least(1)] = 2.0, normalise: Normalise = "none",
) -> Scores:  # fmt: skip
    """Share the target among the units by relevance that every layer hands back in proportion to contributions.

    R_j = sum_k z_jk / (sum_j' z_j'k + epsilon * sign) * R_k, z_jk = x_j w_jk; "gamma" counts contributions of the
    output's sign 1 + gamma times, "alpha_beta" shares alpha R_k among positive and (1 - alpha) R_k among negative ones.
    Attention patterns and the divisors of norms are taken as given, activations pass relevance on, products share it in
    halves. Positive raises the target. Conserves: scores, other tokens and constants (biases, position embeddings) sum
    to a logit or a difference of logits; for epsilon > 0 less. The books per block are in the evidence (Bach et al.
    2015; Montavon et al. 2019; Wu & Ong 2021, arXiv:2101.00196; Ali et al. 2022, arXiv:2202.07304).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts. A log-prob starts as its gradient times the logits.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        rule: of the linear layers.
        epsilon: added to the outputs of linear layers, with their sign (rule "epsilon"); absorbs weak relevance.
        gamma: how much more contributions of the output's sign count (rule "gamma").
        alpha: share of the positive contributions (rule "alpha_beta"); beta is alpha - 1.
        normalise: scale of the scores.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    found = relevance(question, Rules(linear=rule, epsilon=epsilon, gamma=gamma, alpha=alpha))
    scores = normalised(per_unit(found.by_position(), question.units), normalise)
    title = {"epsilon": f"LRP, epsilon {epsilon:g}", "gamma": f"LRP, gamma {gamma:g}"}.get(
        rule, f"LRP, alpha {alpha:g}"
    )
    books = conservation(found, question.subject, conserving=epsilon == 0 or rule != "epsilon")
    return question.answer(scores, title).with_evidence(books)
