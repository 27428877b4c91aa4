"""Edit generality: whether the new answer also follows other wordings of the fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import paraphrased
from pellucid.evaluate._edits import ask_both, checked, need_questions, shares
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-2",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*(2+tokens)*F",
)
def edit_generality(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, tokens: Count = 20, seed: Count = 0
) -> Evidence:
    """Return how often the new answer is more probable than the true one behind paraphrases of the fact.

    PS of CounterFact (Meng et al. 2022, arXiv:2202.05262), a mean over the paraphrases of a fact, then over facts; with
    the same further figures, values before the change and intervals over facts as `edit_efficacy`. Higher is better.
    Exact.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: `EditCase` values with `paraphrases`.
        tokens: most tokens that are generated; 0 leaves generation out.
        seed: of the bootstrap.

    Returns:
        Evidence with the figures of `edit_efficacy`, over paraphrases.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no paraphrase, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "Edit generality")
    questions = paraphrased(cases)
    need_questions(questions, "Edit generality", "paraphrases")
    asked = ask_both(subject, edited, questions, len(cases), tokens)
    return shares("edit generality", "Behind paraphrases the new answer is more probable", asked, seed, gains=True)
