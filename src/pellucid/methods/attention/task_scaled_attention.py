"""TaSc: what each token adds to a class through attention that is scaled for the task."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError, TargetError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, Unit
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.engine.question import per_unit
from pellucid.engine.task_scaling import as_tensors, parts, states_of
from pellucid.models.subject import Subject


@method(
    rows=("EVF-11",),
    paper="arXiv:2105.02657",
    takes="models",
    produces="scores",
    axes=("unit",),
    needs=("activations",),
    cost="F",
)
def task_scaled_attention(
    subject: Subject, prompt: PromptLike, *, head: Learned, target: int | None = None, unit: Unit = "token"
) -> Scores:
    """Score each token by its part of a class's logit in a head that `task_scaled_head` trained.

    R_i = a_i s_i (w_c . h_i), attention times its gradient: with the head's bias it adds up to the logit, exactly.
    Positive speaks for the class. h_i has read the whole prompt, so a token's part may come from its neighbours
    (Chrysostomou & Aletras 2021, arXiv:2105.02657).

    Args:
        subject: the model that the head was trained on.
        prompt: text, chat or token ids.
        head: what `task_scaled_head` learned.
        target: the class; None means the one the head predicts.
        unit: what gets a score.

    Returns:
        Scores [unit]; tokens that belong to no unit are in the evidence with the bias.

    Raises:
        InputError: a head of another kind or width.
        TargetError: a class that the head does not have.
    """
    found = states_of(subject, prompt)
    tensors = as_tensors(head.tensors)
    width = found.states.shape[-1]
    if "query" not in tensors or tensors["query"].shape != (width,):
        raise InputError(
            f"The head given was not trained on states of {width} dimensions; pass what task_scaled_head learned for "
            "this model."
        )
    attention, scale, said = parts(found, tensors)
    bias = tensors["bias"]
    logits = (attention * scale) @ said + bias
    wanted = int(logits.argmax()) if target is None else target
    if not 0 <= wanted < len(bias):
        raise TargetError(f"There is no class {wanted}; the head has the classes 0 to {len(bias) - 1}.")
    tokens = subject.encode(prompt)
    units = subject.units(tokens, unit)
    each = (attention * scale * said[:, wanted]).double().numpy()
    values = per_unit(each[:, None], units)[:, 0]
    rest = float(each.sum() - values.sum())
    return Scores(
        title="Attention scaled for a task", values=values, axes=("unit",), unit="logit", tokens=tokens, units=units,
        target=f"class {wanted}", sign="positive speaks for the class",
        evidence=(_sum(float(logits[wanted]), float(bias[wanted]), rest, float(np.sum(values))),),
    )  # fmt: skip


def _sum(logit: float, bias: float, rest: float, scores: float) -> Evidence:
    gap = abs(logit - bias - rest - scores)
    return Evidence(
        "completeness",
        f"Scores, the bias {bias:.3g} and tokens of no unit {rest:.3g} add up to the logit {logit:.3g} within "
        f"{gap:.1g}.",
        {"gap": gap, "bias": bias, "outside": rest, "logit": logit},
        ok=gap < 1e-4 * max(1.0, abs(logit)),
    )
