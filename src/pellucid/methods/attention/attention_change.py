"""Attention change: how two models, such as before and after fine-tuning, send attention to one token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.head_patterns import one_of, patterns
from pellucid.models.subject import Subject


@method(
    rows=("ATT-4",),
    paper="arXiv:2009.07053",
    takes="models",
    produces="scores",
    axes=("part", "layer", "key"),
    needs=("attention",),
    cost="models*F",
)
def attention_change(
    models: Sequence[Subject], prompt: PromptLike, *, token: int = -1, residual: bool = True
) -> Scores:
    """Trace a token's attention back through the layers of two models, and subtract.

    From r_L = the token alone, r_{l-1} = r_l (mean over heads of A^l + identity) / 2 gives each layer's input tokens
    their share in the token at the top; the change is the second model's share minus the first's, so it sums to 0 in
    every layer. Exact for what it states; like rollout, it leaves values and feed-forward layers out (DeRose et al.
    2020, arXiv:2009.07053). One of the models may be an edited view, for example with heads removed (Jaunet et al.
    2021, arXiv:2104.00926).

    Args:
        models: two models with the same tokens and number of layers: pretrained and fine-tuned, plain and edited.
        prompt: text, chat or token ids.
        token: the position whose attention is traced; negative ones from the last.
        residual: count the residual stream as half of each layer; False follows attention alone.

    Returns:
        Scores [part, layer, key]: the first model's shares, the second's, and the change.

    Raises:
        InputError: not two models, or models whose tokens or layers differ.
    """
    if len(models) != 2:
        raise InputError(f"attention_change compares two models, but got {len(models)}; give the earlier one first.")
    first, second = (subject.encode(prompt) for subject in models)
    if first.ids != second.ids:
        raise InputError(
            f"The models read the prompt as {len(first)} and {len(second)} tokens that are not the same; give models "
            "with one tokenizer."
        )
    place = one_of(token, len(first), "position")
    before, after = (_traced(subject, first, place, residual) for subject in models)
    if len(before) != len(after):
        raise InputError(
            f"The models have {len(before)} and {len(after)} layers, so layers cannot be compared; give models of one "
            "shape."
        )
    pieces = tuple(piece or f"⟨{i}⟩" for piece, i in zip(first.pieces, first.ids, strict=True))
    result = Scores(
        title=f"Attention traced to token {place}: {pieces[place]!r}",
        values=np.stack([before, after, after - before]),
        axes=("part", "layer", "key"),
        labels={"part": ("first model", "second model", "change"), "key": pieces},
        unit="share",
        sign="a positive change means that the second model takes more from the token",
        tokens=first,
    )
    return result.with_evidence(_moved(after - before))


def _traced(subject: Subject, tokens: Tokens, place: int, residual: bool) -> np.ndarray:
    """Return the share of every token at the input of each layer in one token at the top: [layer, key]."""
    share, rows = np.eye(len(tokens))[place], []
    for pattern in reversed(patterns(subject, tokens).values()):
        step = share @ pattern.mean(0)
        share = (step + share) / 2 if residual else step
        rows.append(share)
    return np.stack(rows[::-1])


def _moved(change: np.ndarray) -> Evidence:
    """Return how much of the attention went elsewhere in each layer: half the sum of absolute changes."""
    moved = np.abs(change).sum(1) / 2
    return Evidence(
        "moved attention",
        f"The models differ most at the input of layer {int(moved.argmax())}, where {100 * moved.max():.0f} % of the "
        "traced attention goes to other tokens.",
        {f"layer {layer}": float(value) for layer, value in enumerate(moved)},
    )
