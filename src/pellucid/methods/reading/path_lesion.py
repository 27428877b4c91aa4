"""Path lesions: blocks dropped or put in another order, and what the target loses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.cone import score_edits, score_edits_plain
from pellucid.engine.planning import check_cancelled
from pellucid.engine.question import Question, ask
from pellucid.engine.reading import read
from pellucid.engine.stream_parts import part_kinds
from pellucid.engine.variants import whole
from pellucid.models.edits import Context, Edit
from pellucid.models.hooks import acting
from pellucid.models.layout import block_of, depth, main_stack
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
    losses = clean - (_swapped(question, sets) if lesion == "swap" else _dropped(question, sets, part))
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


def _dropped(question: Question, sets: Sequence[tuple[int, ...]], part: str) -> np.ndarray:
    """Return the score without each set of blocks (or parts of them)."""
    subject = question.subject
    name = main_stack(subject.need_layout())
    stack = subject.need_layout().stacks[name]
    through = part == "block" and bool(stack.last_norm)  # zero contributions would still be normed
    kinds = part_kinds(subject) if part == "block" else [part]
    edits: list[tuple[Edit, ...]] = [
        tuple(edit for layer in chosen for edit in _bypass(name, layer))
        if through
        else tuple(Edit(str(Site(name, layer, f"{kind}.out")), "zero") for layer in chosen for kind in kinds)
        for chosen in sets
    ]
    run = score_edits_plain if through else score_edits
    return run(subject, question.tokens, question.readout, edits).sum(1)


def _bypass(name: str, layer: int) -> tuple[Edit, Edit]:
    """Return two edits that hand what enters a block on as what leaves it."""
    entered: dict[int, torch.Tensor] = {}

    def keep(value: torch.Tensor, context: Context) -> torch.Tensor:
        entered[context.row] = value
        return value

    def give(value: torch.Tensor, context: Context) -> torch.Tensor:
        return entered[context.row]

    return Edit(str(Site(name, layer, "resid_pre")), keep), Edit(str(Site(name, layer, "resid_post")), give)


def _swapped(question: Question, orders: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return the score with the blocks in each order."""
    found = []
    for order in orders:
        check_cancelled()
        with question.subject.lock, torch.no_grad(), _ordered(question.subject, order):
            values, _ = read(question.subject, question.tokens, question.readout, [whole(question.tokens)])
        found.append(float(values.double().sum()))
    return np.array(found)


def _ordered(subject: Subject, order: tuple[int, ...]) -> AbstractContextManager[None]:
    """Let block order[i] do the work of block i."""
    layout = subject.need_layout()
    stack = layout.stacks[main_stack(layout)]
    if stack.shared:
        raise CapabilityError(
            f"The blocks of {layout.architecture} share modules, so they have no order to change; use lesion='drop'."
        )
    blocks = [block_of(subject.model, stack, layer)[0] for layer in range(len(order))]
    return acting({blocks[i]: blocks[j].forward for i, j in enumerate(order) if i != j})
