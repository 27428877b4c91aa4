"""Removal perplexity: how unlike real text the inputs are that a deletion metric shows the model."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import metric
from pellucid.core.params import PositiveFloat, PromptLike, Replacement
from pellucid.core.results import Evidence, Scores
from pellucid.engine.likelihood import mean_log_likelihood
from pellucid.engine.variants import default_replacement, remove
from pellucid.evaluate._removal import SHARES, counts_of, first
from pellucid.models.subject import Subject


@metric(
    rows=("N-BM7",),
    paper="arXiv:1911.03429",
    takes="prompt",
    produces="evidence",
    better="lower",
    chance=1,
    needs=("logits",),
    cost="6*F",
)
def removal_perplexity(
    subject: Subject, prompt: PromptLike, scores: Scores, *, language_model: Subject | None = None,
    replacement: Replacement | None = None, bar: PositiveFloat = 3.0,
) -> Evidence:  # fmt: skip
    """Return how much higher the perplexity of inputs is once the highest-scored units are removed.

    The geometric mean over 1, 5, 10, 20 and 50 % of the units (those of `comprehensiveness`; DeYoung et al. 2020,
    arXiv:1911.03429) of perplexity(x without them) / perplexity(x), each exp of the mean negative log-likelihood per
    token. Lower is better and 1 is no change: above `bar`, deletion metrics say what the model does on inputs unlike
    those that it was made for. Exact.

    Args:
        subject: the model whose tokens the prompt has.
        prompt: the prompt that was explained.
        scores: one score per unit.
        language_model: a causal language model with the same tokens; None takes the subject itself.
        replacement: how units are removed; None takes what deletion metrics take.
        bar: the factor that the evidence warns above.

    Returns:
        Evidence with the factor, the perplexity of the prompt, and a curve over the number of units removed.

    Raises:
        CapabilityError: the language model is no causal one.
        InputError: scores of another prompt, not one finite number per unit, or embeddings in the place of words.
    """
    model = subject if language_model is None else language_model
    if (model.kind, model.head) != ("decoder", "causal-lm") or model.vocabulary != subject.vocabulary:
        raise CapabilityError(
            f"Perplexity needs a causal language model with the tokens of {subject.name}, but {model.name} is none; "
            "pass language_model=pellucid.load(...) of one."
        )
    tokens = subject.encode(prompt)
    if scores.axes != ("unit",) or scores.units is None or not np.isfinite(scores.values).all():
        raise InputError(f"Scores with the axes {scores.axes} were given; give one finite score per unit.")
    if scores.tokens is not None and scores.tokens.ids != tokens.ids:
        raise InputError("The scores belong to another prompt; give the prompt that was explained.")
    removal = default_replacement(subject) if replacement is None else replacement
    if removal in ("mean", "zero"):
        raise InputError("Perplexity is that of words; give a replacement that is one, or 'delete'.")
    counts = counts_of(SHARES, len(scores.units))
    present = ~first(np.argsort(-scores.values, kind="stable"), counts)
    variants = [remove(subject, tokens, scores.units, mask, removal).ids for mask in present]
    found = -mean_log_likelihood(model, [tokens.ids, *variants])
    factor, whole = float(np.exp((found[1:] - found[0]).mean())), float(np.exp(found[0]))
    warned = " Deletion metrics judge the model on inputs unlike real text here." if factor > bar else ""
    return Evidence(
        "removal perplexity",
        f"Removing the highest-scored units multiplies the perplexity by {factor:.3g} (from {whole:.3g}).{warned}",
        {"value": factor, "prompt": whole},
        {"x": tuple(float(c) for c in counts), "perplexity": tuple(float(v) for v in np.exp(found[1:]))},
        ok=factor <= bar,
    )
