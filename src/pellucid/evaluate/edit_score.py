"""The score of an edit: the harmonic mean of efficacy, generality and locality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import itself, nearby, paraphrased
from pellucid.evaluate._edits import ask_both, checked, need_questions, overall
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-2",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*6*F",
)
def edit_score(subject: Subject, edited: Subject, facts: Sequence[Any], *, seed: Count = 0) -> Evidence:
    """Return one number for an edit, low where any of efficacy, generality and locality is low.

    S = 3 / (1/ES + 1/PS + 1/NS), 0 where one of them is 0 (Meng et al. 2022, arXiv:2202.05262); see `edit_efficacy`,
    `edit_generality` and `edit_locality`. An unchanged model has no score near 1, since its ES is low; its S stands
    beside. Higher is better. Exact, with a 95 % bootstrap interval that draws facts, each with all its questions.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: `EditCase` values with `paraphrases` and `neighbours`.
        seed: of the bootstrap.

    Returns:
        Evidence with `value`, `low`, `high`, the same `before`, and the three shares.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no paraphrase or no neighbour, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "The edit score")
    need_questions(paraphrased(cases), "The edit score", "paraphrases")
    need_questions(nearby(cases), "The edit score", "neighbours")
    sets = (itself(cases), paraphrased(cases), nearby(cases))
    return overall(
        [ask_both(subject, edited, questions, len(cases), 0).measured["prefers"] for questions in sets], seed
    )
