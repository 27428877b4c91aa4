"""Edit efficacy: whether the model now gives the new answer to the very prompt that was edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import itself
from pellucid.evaluate._edits import ask_both, checked, shares
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-1",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*(2+tokens)*F",
)
def edit_efficacy(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, tokens: Count = 20, seed: Count = 0
) -> Evidence:
    """Return how often the new answer of a fact is more probable than the true one behind the fact's own prompt.

    ES = share of facts with p(new) > p(true), by mean log-probability per token (Meng et al. 2022, arXiv:2202.05262);
    where a fact names no true answer, what the unchanged model says takes its place. Beside it the magnitude
    p(new) - p(true), whether every token of the new answer is the likeliest one (EM; Yao et al. 2023,
    arXiv:2305.13172), the share of such tokens, which is above 0 for unchanged models too, and whether the model says
    the new answer when it generates freely to the end of the text. Each with its value before the change and a 95 %
    bootstrap interval over facts. Higher is better; the level to beat is the value before. Exact.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: facts or `EditCase` values, one or more.
        tokens: most tokens that are generated; 0 leaves generation out.
        seed: of the bootstrap.

    Returns:
        Evidence with `value` (ES), `magnitude`, `exact`, `tokens` and `says`, each also as `..._before`, `..._change`
        and with `..._low`, `..._high`.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no fact, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "Edit efficacy")
    asked = ask_both(subject, edited, itself(cases), len(cases), tokens)
    return shares("edit efficacy", "The new answer is more probable than the true one", asked, seed, gains=True)
