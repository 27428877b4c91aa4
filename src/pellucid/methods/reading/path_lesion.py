"""Path lesions: blocks dropped or put in another order, and what the target loses."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.cone import score_edits
from pellucid.engine.lesions import in_order, without_blocks
from pellucid.engine.question import ask
from pellucid.models.layout import depth
from pellucid.models.subject import Subject


@method(
    rows=("TXB-8",),
    paper="arXiv:1605.06431",
    takes="prompt",
    produces="scores",
    axes=("layer",),
    needs=("activations",),
    cost="(layers+samples*layers+2)*targets*F",
)
def path_lesion(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    lesion: Literal["drop", "swap"] = "drop", part: Literal["block", "attn", "mlp"] = "block", several: bool = False,
    samples: Positive = 4, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each block by what the target loses when it is dropped, or changes places with the next.

    R = f(model) - f(lesioned model); positive means that the target needs what was lesioned. A residual network of n
    blocks is a sum over 2^n paths, of which dropping one block cuts half and reordering makes new ones; with `several`
    the score is the mean loss over random sets of 1, 2, ... blocks (or as many random swaps), with its standard error.
    Exact for each lesion. With a continuation as target, log p gives the loss of a text (Veit et al. 2016,
    arXiv:1605.06431).

    Args:
        subject: the model, from `pellucid.load`; of an encoder-decoder, the decoder is lesioned.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        lesion: "drop" lets the stream pass a block unchanged, "swap" exchanges two blocks (each is given the mask and
            rotation of its new place).
        part: what is dropped: whole blocks, or their attention or feed-forward layers alone, norms behind them staying.
        several: lesion random sets of growing size in place of each block.
        samples: random sets per size.
        seed: of the sets.

    Returns:
        Scores [layer], or [fraction] of the blocks for `several`.

    Raises:
        InputError: a swap of parts, or in a model of one block.
        CapabilityError: a swap in a model whose blocks share modules.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    layers = depth(subject.model, subject.need_layout())
    if lesion == "swap" and (part != "block" or layers < 2):
        raise InputError(
            f"A swap exchanges whole blocks, but part is {part!r} and the model has {layers}; use part='block' or "
            "lesion='drop'."
        )
    sets, names = _sets(layers, lesion, several, samples, np.random.default_rng(seed))
    clean = score_edits(subject, question.tokens, question.readout, [()])[0].sum()
    losses = clean - (in_order(question, sets) if lesion == "swap" else without_blocks(question, sets, part))
    error = None
    if several:
        by_size = losses.reshape(len(names), samples)
        error = by_size.std(1, ddof=1) / np.sqrt(samples) if samples > 1 else None
        losses = by_size.mean(1)
    axis = "fraction" if several else "layer"
    return Scores(
        title=f"Path lesion: {lesion} {part if not several else f'random {part}s'}",
        values=losses,
        axes=(axis,),
        labels={axis: names},
        unit=question.readout.unit,
        sign="positive: the target needs what was lesioned",
        std_error=error,
        tokens=question.tokens,
        target=question.readout.description,
    )


def _sets(
    layers: int, lesion: str, several: bool, samples: int, rng: np.random.Generator
) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Return what is lesioned each time, and the labels: blocks to drop, or the new order of all blocks."""
    if several and lesion == "drop":
        sizes = range(1, layers + 1)
        drawn = [
            tuple(int(i) for i in rng.choice(layers, size, replace=False)) for size in sizes for _ in range(samples)
        ]
        return drawn, tuple(f"{size}/{layers}" for size in sizes)
    if several:
        swaps = range(1, layers)
        drawn = [_shuffled(layers, count, rng) for count in swaps for _ in range(samples)]
        return drawn, tuple(f"{count} swaps" for count in swaps)
    if lesion == "drop":
        return [(layer,) for layer in range(layers)], tuple(str(layer) for layer in range(layers))
    orders = [(*range(i), i + 1, i, *range(i + 2, layers)) for i in range(layers - 1)]
    return orders, tuple(f"{i} and {i + 1}" for i in range(layers - 1))


def _shuffled(layers: int, swaps: int, rng: np.random.Generator) -> tuple[int, ...]:
    order = list(range(layers))
    for _ in range(swaps):
        i, j = rng.choice(layers, 2, replace=False)
        order[i], order[j] = order[j], order[i]
    return tuple(order)
