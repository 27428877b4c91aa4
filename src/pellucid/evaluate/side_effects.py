"""Side effects: how far a change moves the model on text that it is not about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Count, NonNegativeFloat
from pellucid.core.results import Evidence
from pellucid.engine.continuations import need_speaker
from pellucid.engine.divergence import parting
from pellucid.engine.own_text import own_texts
from pellucid.evaluate._edits import DRAWS
from pellucid.models.subject import Subject

OWN_TEXTS, OWN_LENGTH = 16, 32


@metric(
    rows=("N-ED3", "EVE-2"),
    paper="arXiv:2401.07453",
    takes="models",
    produces="evidence",
    better="lower",
    chance=0,
    needs=("logits",),
    cost="pairs*2*F",
)
def side_effects(
    subject: Subject, edited: Subject, texts: Sequence[Any] | None = None, *, bar: NonNegativeFloat = 0.05,
    seed: Count = 0,
) -> Evidence:  # fmt: skip
    """Return KL(before || after) per token on neutral text, and the perplexity before and after.

    KL of the next-token distributions in nats, a mean over all positions of all texts; perplexity is exp of the mean
    -log p per token from each text's second one on; `same` is the share of positions with the same likeliest token.
    0, a ratio of 1 and 1 for a model that was not changed; lower KL is better. Exact for the texts given, with 95 %
    bootstrap intervals that draw texts, so that positions of one text stay together. Perplexity as a sign of collapse:
    Gupta et al. 2024, arXiv:2401.07453.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        texts: text that the change is not about; None takes 16 that it writes itself before the change.
        bar: nats per token above which the evidence warns.
        seed: of own texts and of the bootstrap.

    Returns:
        Evidence with `value` (KL), `perplexity`, `perplexity_before`, `perplexity_ratio`, `same`, with intervals.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no text, no text of two tokens or more, or models with other tokens.
    """
    for one in (subject, edited):
        need_speaker(one, "The metric side_effects")
    given = own_texts(subject, OWN_TEXTS, OWN_LENGTH, seed) if texts is None else texts
    ids, others = ([one.encode(text).ids[: one.max_length] for text in given] for one in (subject, edited))
    if not any(len(one) > 1 for one in ids):
        raise InputError("No neutral text of two tokens or more was given; give some, or None for the model's own.")
    found = parting(subject, edited, ids, others)
    # Per text: sums of KL, of equal tokens and of both losses, and the counts that they are divided by.
    sums = np.array([[one.kl.sum(), one.same.sum(), *one.losses.sum(1), len(one.kl), one.losses.shape[1]]
                     for one in found])  # fmt: skip
    drawn = sums[np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))].sum(1)
    values = _ratios(sums.sum(0)[None])
    many = _ratios(drawn[drawn[:, 5] > 0])
    known = {name: float(value[0]) for name, value in values.items()}
    for name, resampled in many.items():
        front = "" if name == "value" else f"{name}_"
        known[f"{front}low"], known[f"{front}high"] = (float(q) for q in np.quantile(resampled, [0.025, 0.975]))
    known |= {"texts": float(len(ids)), "positions": float(sums[:, 4].sum())}
    return Evidence(
        "side effects",
        f"On {known['positions']:.0f} tokens of neutral text the model moves by {known['value']:.3g} nats per token "
        f"({known['low']:.2g} to {known['high']:.2g}), says another likeliest token at {100 * (1 - known['same']):.1f} "
        f"% of them, and has a perplexity of {known['perplexity']:.4g}; before the change "
        f"{known['perplexity_before']:.4g}.",
        known,
        ok=bool(known["value"] <= bar),
    )


def _ratios(sums: np.ndarray) -> dict[str, np.ndarray]:
    kl, same, before, after, positions, predicted = sums.T
    first, second = np.exp(before / predicted), np.exp(after / predicted)
    return {"value": kl / positions, "same": same / positions, "perplexity_before": first, "perplexity": second,
            "perplexity_ratio": second / first, "perplexity_change": second - first}  # fmt: skip
