"""Ripple effects: whether what follows from a new fact follows for the model too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import following, kinds
from pellucid.evaluate._edits import Asked, ask_both, checked, figures, need_questions, percent
from pellucid.models.subject import Subject


@metric(
    rows=("N-ED3",),
    paper="arXiv:2307.12976",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*(2+tokens)*F",
)
def ripple_effects(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, tokens: Count = 20, seed: Count = 0
) -> Evidence:
    """Return how often the model gives the answers that follow from the new facts, by kind of consequence.

    Portability (Yao et al. 2023, arXiv:2305.13172) and ripple effects (Cohen et al. 2023, arXiv:2307.12976): logical
    (the inverse relation), compositional and multi-hop (MQuAKE; Zhong et al. 2023, arXiv:2305.14795), aliasing, or any
    kind that the cases name. The value is the share of answers every token of which is the likeliest one, a mean per
    fact over all kinds, then over facts; `says` is the share said freely, `prefers` how often the answer beats what
    the model said before. Each kind has its own `value` under its name. Higher is better; values before the change
    stand beside, with 95 % bootstrap intervals over facts. Exact.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: `EditCase` values with `consequences`.
        tokens: most tokens that are generated; 0 leaves generation out.
        seed: of the bootstrap.

    Returns:
        Evidence with `value`, `says`, `prefers`, and for each kind its share, with intervals and values before.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no consequence, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "The metric ripple_effects")
    questions = following(cases)
    need_questions(questions, "The metric ripple_effects", "consequences")
    whole = ask_both(subject, edited, questions, len(cases), tokens)
    by_kind: dict[str, Asked] = {
        kind: ask_both(subject, edited, following(cases, kind), len(cases), 0) for kind in kinds(cases)
    }
    measured = {**whole.measured, **{kind: asked.measured["exact"] for kind, asked in by_kind.items()}}
    values = figures(measured, "exact", seed)
    parts = "; ".join(f"{kind} {percent(values, kind)}" for kind in by_kind)
    free = f"; said freely {percent(values, 'says')}" if "says" in measured else ""
    low, high = values["change_low"], values["change_high"]
    return Evidence(
        "ripple effects",
        f"What follows is the likeliest answer in {percent(values)}, over {values['cases']:.0f} facts{free}; {parts} "
        "(95 % intervals).",
        values,
        ok=low > 0 if low > 0 or high <= 0 else None,
    )
