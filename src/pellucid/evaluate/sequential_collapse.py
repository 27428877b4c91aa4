"""Sequential collapse: what a row of edits, one upon the other, leaves of the model and of the earlier edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Count, PositiveFloat
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import itself
from pellucid.evaluate._edits import ask_both, checked
from pellucid.evaluate.side_effects import side_effects
from pellucid.models.subject import Subject


@metric(
    rows=("N-ED3",),
    paper="arXiv:2401.07453",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*2*F",
)
def sequential_collapse(
    subject: Subject, after: Sequence[Any], facts: Sequence[Any], *, texts: Sequence[Any] | None = None,
    factor: PositiveFloat = 2.0, seed: Count = 0,
) -> Evidence:  # fmt: skip
    """Return how much of the edits a model keeps as more follow, and after which one its perplexity breaks away.

    `after[i]` is the model after the first i + 1 edits, `facts[i]` the fact of edit i + 1, one or several. At every
    step: the share of all facts so far whose new answer beats the true one, that of the edit just made, and KL and
    perplexity on neutral text. The model counts as collapsed from the first step whose perplexity is above `factor`
    times that before all edits (Gupta et al. 2024, arXiv:2401.07453; Yang et al. 2024, arXiv:2402.09656). The value is
    the share of all facts that hold at the end; higher is better. Exact for facts and texts.

    Args:
        subject: the model before all edits, from `pellucid.load`; a causal language model with a tokenizer.
        after: the models after each edit (or after each of some steps), in order.
        facts: per step the fact, or the list of facts, that it wrote.
        texts: neutral text; None takes 16 that the model writes itself before the edits.
        factor: of perplexity that counts as collapse.
        seed: of own texts.

    Returns:
        Evidence with `value`, `last` (the last edit alone), `steps`, `collapsed` (the step, from 1, or 0 for never),
        `perplexity_before` and `perplexity`, and curves over the number of steps.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no step, or not one fact or list per step.
    """
    if not after or len(after) != len(facts):
        raise InputError(f"{len(after)} models and {len(facts)} facts were given; give one fact, or list, per step.")
    steps = [list(one) if isinstance(one, list | tuple) else [one] for one in facts]
    held, fresh, drift, perplexity, before = list[float](), list[float](), list[float](), list[float](), float("nan")
    for i, edited in enumerate(after):
        cases = checked(subject, edited, [fact for step in steps[: i + 1] for fact in step], "Sequential collapse")
        found = ask_both(subject, edited, itself(cases), len(cases), 0).measured["prefers"][1]
        held.append(float(np.nanmean(found)))
        fresh.append(float(np.nanmean(found[-len(steps[i]) :])))
        effects = side_effects(subject, edited, texts, seed=seed).values
        before = effects["perplexity_before"]
        drift.append(effects["value"])
        perplexity.append(effects["perplexity"])
    collapsed = next((i + 1 for i, value in enumerate(perplexity) if value > factor * before), 0)
    said = f"collapses at step {collapsed}" if collapsed else "does not collapse"
    return Evidence(
        "sequential collapse",
        f"After {len(after)} steps {100 * held[-1]:.0f} % of all facts hold, {100 * fresh[-1]:.0f} % of the last "
        f"step's; perplexity goes from {before:.4g} to {perplexity[-1]:.4g}, so the model {said}.",
        {"value": held[-1], "last": fresh[-1], "steps": float(len(after)), "collapsed": float(collapsed),
         "perplexity_before": before, "perplexity": perplexity[-1]},
        {"x": tuple(float(i + 1) for i in range(len(after))), "facts that hold": tuple(held),
         "the last step's": tuple(fresh), "KL on neutral text": tuple(drift), "perplexity": tuple(perplexity)},
        ok=collapsed == 0,
    )  # fmt: skip
