"""In-context learning score: how much easier late tokens are than early ones, and which heads that takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive
from pellucid.core.results import Evidence, Scores
from pellucid.engine.capture import capture
from pellucid.engine.coalitions import standard_error
from pellucid.engine.role_inputs import causal
from pellucid.engine.token_losses import Text, token_losses, without_heads
from pellucid.models.subject import Subject


@method(
    rows=("MEC-5",),
    paper="arXiv:2209.11895",
    takes="corpus",
    produces="scores",
    axes=("layer", "head"),
    needs=("activations", "logits"),
    cost="(layers*heads+2)*prompts*F",
)
def in_context_learning_score(
    subject: Subject, prompts: Sequence[Any], *, early: Positive = 50, late: Positive = 500, around: Positive = 1
) -> Scores:
    """Score each head by how much of the in-context learning is lost when it is ablated.

    The score of a model is S = loss of token `late` - loss of token `early`, in nats, a mean over prompts; negative
    means that it learns from context. R[l, h] = S(head ablated) - S; positive means that the head does part of it. The
    head's output becomes its mean over all tokens of the prompts. Exact for the prompts given; standard errors over
    prompts, paired (Olsson et al. 2022, arXiv:2209.11895).

    Args:
        subject: a causal language model, from `pellucid.load`.
        prompts: texts, chats or token ids of more than `late` tokens; shorter ones are left out.
        early: position of the early token, from 1.
        late: position of the late token.
        around: that many tokens, from each position on backwards, are averaged.

    Returns:
        Scores [layer, head] in nats; the model's own score and loss are in the evidence.

    Raises:
        InputError: no prompt is long enough, or `late` is not behind `early`.
        CapabilityError: a model that is no causal language model.
    """
    causal(subject, "in_context_learning_score")
    if late <= early or around > early:
        raise InputError(
            f"The late token {late} must lie behind the early token {early}, and {around} tokens up to each must "
            "exist; choose early < late and around <= early."
        )
    encoded = [subject.encode(prompt) for prompt in prompts]
    ids = [tokens.ids for tokens in encoded if len(tokens) > late]
    if not ids:
        longest = max((len(tokens) for tokens in encoded), default=0)
        raise InputError(
            f"The late token {late} needs prompts of more than {late} tokens, but the longest has {longest}; give "
            "longer prompts or smaller `early` and `late`."
        )
    places = tuple(p - i for p in (early, late) for i in range(around))
    texts = [Text(one, places) for one in ids]
    values = [capture(subject, list(one), ["blocks.*.attn.z"]) for one in ids]
    names = list(values[0])
    means = {layer: torch.cat([one[name] for one in values]).mean(0) for layer, name in enumerate(names)}
    heads = [(layer, head) for layer, mean in means.items() for head in range(len(mean))]
    edits = [without_heads(means, [head]) for head in heads]
    losses = token_losses(subject, texts * (len(heads) + 1), [one for one in [(), *edits] for _ in texts])
    both = np.stack(losses).reshape(len(heads) + 1, len(texts), 2, around).mean(-1)
    score = both[..., 1] - both[..., 0]
    lost = (score[1:] - score[0]).reshape(len(means), -1, len(texts))
    return Scores(
        title="In-context learning lost without each head",
        values=lost.mean(-1),
        axes=("layer", "head"),
        labels={"layer": tuple(str(layer) for layer in means)},
        unit="nats",
        sign="positive means that the head does part of the in-context learning",
        std_error=standard_error(np.moveaxis(lost, -1, 0)) if len(texts) > 1 else None,
        target=f"loss of token {late} - loss of token {early}",
    ).with_evidence(_own(score[0], both[0].mean(0)))


def _own(score: np.ndarray, losses: np.ndarray) -> Evidence:
    """Return the model's own score over prompts, and the losses it is made of."""
    count = len(score)
    half = float(stats.t.ppf(0.975, count - 1) * standard_error(score[:, None])[0]) if count > 1 else float("nan")
    return Evidence(
        "in-context learning score",
        f"The loss falls from {losses[0]:.3g} to {losses[1]:.3g} nats, a score of {score.mean():.3g}"
        + (f" with a 95 % interval of +- {half:.2g} over {count} prompts." if count > 1 else " on one prompt."),
        {"score": float(score.mean()), "half_width": half, "early": float(losses[0]), "late": float(losses[1]),
         "prompts": float(count)},
        ok=bool(score.mean() + half < 0) if count > 1 else None,
    )  # fmt: skip
