"""Edit locality: whether answers about other subjects stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import nearby
from pellucid.evaluate._edits import checked, need_questions, neighbourhood, shares
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-2",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*(3+tokens)*F",
)
def edit_locality(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, tokens: Count = 20, seed: Count = 0
) -> Evidence:
    """Return how often the true answer about a neighbour of the edited subject stays above the fact's new answer.

    NS of CounterFact, also called specificity (Meng et al. 2022, arXiv:2202.05262): the share of neighbouring prompts
    with p(true) > p(new), a mean per fact, then over facts. It asks for little, so beside it stand `same`, the share
    of neighbours with the same likeliest next token before and after, `kl`, KL(before || after) of the next token in
    nats, and `unchanged`, the share whose free continuation is the same text to its end; these are 1, 0 and 1 before
    the change by definition. Higher is better (`kl` lower). Exact, with 95 % bootstrap intervals over facts.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: `EditCase` values with `neighbours`.
        tokens: most tokens that are generated; 0 leaves generation out.
        seed: of the bootstrap.

    Returns:
        Evidence with the figures of `edit_efficacy` for the true answers, and `same`, `kl` and `unchanged`.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no neighbour, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "Edit locality")
    questions = nearby(cases)
    need_questions(questions, "Edit locality", "neighbours")
    asked = neighbourhood(subject, edited, questions, len(cases), tokens)
    return shares("edit locality", "The true answer about a neighbour stays above the new one", asked, seed)
