"""Reference consistency: whether free text about the edited subject reads like text about what it now is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence
from pellucid.evaluate._edits import checked, figures
from pellucid.evaluate._fluency import likeness, written
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-3",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*tokens*2*F",
)
def reference_consistency(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, tokens: Positive = 100, top: Positive = 5,
    seed: Count = 0,
) -> Evidence:  # fmt: skip
    """Return how like the references of a fact the text is that the model writes behind its prompt.

    RS = cosine of the tf-idf vectors of the written text and of texts about things that the new answer is true of
    (Meng et al. 2022, arXiv:2202.05262). The idf weights are those of the references given, where the paper takes a
    large corpus, so values compare within one set of facts alone. `others` is the cosine with the references of the
    other facts: what text about anything has. Text is drawn as in `generation_entropy`. Higher is better.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: `EditCase` values with `references`.
        tokens: most tokens of a text.
        top: likeliest tokens to draw from; 1 is greedy.
        seed: of the draws and of the bootstrap.

    Returns:
        Evidence with `value`, `before`, `change` and `others`, each with its 95 % bootstrap interval over facts.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no fact with references, or references without a word.
    """
    cases = [one for one in checked(subject, edited, facts, "Reference consistency") if one.references]
    if not any(any(char.isalnum() for char in text) for one in cases for text in one.references):
        raise InputError("Reference consistency needs references; give EditCase(fact, references=[texts]).")
    prompts = [one.fact.text for one in cases]
    own, others = [], []
    for model in (subject, edited):
        near, far = likeness(written(model, prompts, tokens, top, seed), [one.references for one in cases])
        own.append(near)
        others.append(far)
    values = figures({"own": (own[0], own[1]), "others": (others[0], others[1])}, "own", seed)
    beside = "" if np.isnan(values["others"]) else f"; with those of other facts {values['others']:.2f}"
    return Evidence(
        "reference consistency",
        f"What the model writes has a tf-idf cosine of {values['value']:.2f} ({values['low']:.2f} to "
        f"{values['high']:.2f}) with the references of its fact{beside}; before the change {values['before']:.2f}.",
        values,
    )
