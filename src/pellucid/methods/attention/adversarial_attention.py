"""Adversarial attention: the most different attention weights with which the output stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.attention_rows import AttentionRows, attention_rows, score_rows
from pellucid.engine.gradients import frozen
from pellucid.engine.output_distance import distance_readout, jensen_shannon
from pellucid.engine.planning import check_cancelled, in_batches
from pellucid.engine.question import Question, ask
from pellucid.engine.reading import read
from pellucid.engine.readout import Readout
from pellucid.engine.site_gradients import stacked
from pellucid.engine.variants import whole
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

PENALTY = 500.0  # the paper's weight of the constraint


@method(
    rows=("ATT-11",),
    paper="arXiv:1902.10186",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("gradients", "attention"),
    cost="(layers*(steps+2)+5)*F+layers*steps*B",
)
def adversarial_attention(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, layers: Sequence[int] | None = None,
    view: Literal["divergence", "weights"] = "divergence", allowed: PositiveFloat = 0.01, steps: Positive = 50,
    seed: int = 0,
) -> Scores:  # fmt: skip
    """Search attention weights far from the model's own that leave the output where it was.

    For each layer alone: maximise the mean over heads of JSD(A, adversarial A) subject to TVD(y, adversarial y) <=
    allowed, where A are the weights of the position that is read, JSD is the Jensen-Shannon divergence (0 to log 2) and
    TVD the total variation distance of output distributions (0 to 1). A large divergence says that the weights are not
    the only ones that explain the output. By gradient ascent with a penalty, keeping the best weights that keep the
    constraint: a lower bound of the true maximum. The evidence also gives uniform weights in each layer
    (Jain & Wallace 2019, arXiv:1902.10186). Of the rebuttal (Wiegreffe & Pinter 2019, arXiv:1908.04626; Moradi et al.
    2021) what needs a second model trained is left out: one adversarial model for all inputs, variance over training
    seeds, training with frozen uniform weights or for weights put into a network without attention, and attention
    retrained in translation; uniform weights are here put into the model as it is.

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the cross attention is searched.
        prompt: text, chat or token ids.
        target: only names the target in the result; one token or class.
        layers: the blocks whose attention is searched; None means all.
        view: "divergence" gives each head's JSD, "weights" the weights that were found.
        allowed: largest TVD of the output.
        steps: of the ascent (Adam).
        seed: of the start.

    Returns:
        Scores [layer, head], or [layer, head, key] with view="weights".

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a target of several tokens.
        CapabilityError: a model without an output distribution.
    """
    question = ask(subject, prompt, target=target)
    found = attention_rows(question, layers)
    readout = distance_readout(question, "total_variation")

    def run(batch: list[int]) -> list[torch.Tensor]:
        return _ascend(question, readout, found, batch, allowed, steps, seed)

    numbers = list(range(len(found.sites)))
    weights = in_batches(numbers, [len(question.tokens)] * len(numbers), run)
    divergence = [jensen_shannon(own, other) for own, other in zip(found.rows, weights, strict=True)]
    chosen = weights if view == "weights" else divergence
    return Scores(
        title="Adversarial attention",
        values=stacked([value.numpy() for value in chosen]),
        axes=("layer", "head", "key") if view == "weights" else ("layer", "head"),
        labels={"layer": found.layers},
        unit="weight" if view == "weights" else "Jensen-Shannon divergence (nats)",
        sign="larger means weights further from the model's own leave the output as it is",
        tokens=question.tokens,
        target=question.readout.description,
        evidence=(_constraint(question, readout, found, weights, allowed),),
    )


def _ascend(
    question: Question, readout: Readout, found: AttentionRows, layers: list[int], allowed: float, steps: int, seed: int
) -> list[torch.Tensor]:
    """Return the best weights [head, key] of each layer, float64 on the CPU; the model's own where none are better."""
    subject = question.subject
    own = [found.rows[i] for i in layers]
    best, scores = [row.clone() for row in own], [0.0] * len(layers)
    starts, hidden = zip(*(_start(found, i, seed) for i in layers), strict=True)
    optimiser = torch.optim.Adam([start.requires_grad_() for start in starts], lr=0.3)
    for _ in range(steps):
        check_cancelled()
        optimiser.zero_grad()
        with subject.lock, frozen(subject.model), torch.enable_grad():
            weights = [(start + mask).softmax(-1) for start, mask in zip(starts, hidden, strict=True)]
            edits = [(_put(found, i, row),) for i, row in zip(layers, weights, strict=True)]
            values, _ = read(
                subject, question.tokens, readout, [whole(question.tokens)] * len(layers), edits=edits, grad=True
            )
            far = torch.stack([jensen_shannon(a, b).mean() for a, b in zip(own, weights, strict=True)])
            moved = values[:, 0].to(far)
            (PENALTY * (moved - allowed).clamp(min=0) - far).sum().backward()
        subject.count(backwards=len(layers))
        for i, (change, distance) in enumerate(zip(moved.tolist(), far.tolist(), strict=True)):
            if change <= allowed and distance > scores[i]:
                best[i], scores[i] = weights[i].detach().clone(), distance
        optimiser.step()
    return best


def _start(found: AttentionRows, layer: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a start beside the own weights (where the divergence has no slope), and the mask of unseen keys."""
    row = found.rows[layer]
    draw = torch.randn(row.shape, generator=torch.Generator().manual_seed(seed + layer), dtype=row.dtype)
    mask = torch.full_like(row, -torch.inf)
    mask[:, found.seen[layer]] = 0
    return row.clamp(min=1e-6).log() + 0.1 * draw, mask


def _put(found: AttentionRows, layer: int, weights: torch.Tensor) -> Edit:
    return Edit(found.sites[layer], lambda value, context: weights[:, None].to(value), where={"query": found.query})


def _constraint(
    question: Question, readout: Readout, found: AttentionRows, weights: Sequence[torch.Tensor], allowed: float
) -> Evidence:
    """Return how far the output moves with the weights found and with uniform ones."""
    even = []
    for row, seen in zip(found.rows, found.seen, strict=True):
        new = torch.zeros_like(row)
        new[:, seen] = 1 / len(seen)
        even.append(new)
    replaced = [*enumerate(weights), *enumerate(even)]
    moved, flat = np.split(score_rows(question, readout, found, replaced)[:, 0], 2)
    far = [float(jensen_shannon(a, b).mean()) for a, b in zip(found.rows, weights, strict=True)]
    even_far = [float(jensen_shannon(a, b).mean()) for a, b in zip(found.rows, even, strict=True)]
    return Evidence(
        "output under other attention",
        f"With the weights found the output moves by a total variation distance of at most {moved.max():.2g} (allowed "
        f"{allowed:.2g}), with uniform weights by up to {flat.max():.2g}.",
        {"moved": float(moved.max()), "allowed": allowed, "divergence": float(np.mean(far)),
         "uniform_moved": float(flat.max()), "uniform_divergence": float(np.mean(even_far))},
        {"x": tuple(float(layer) for layer in found.layers), "moved": tuple(moved.tolist()), "divergence": tuple(far),
         "uniform moved": tuple(flat.tolist()), "uniform divergence": tuple(even_far)},
        ok=bool(moved.max() <= 1.05 * allowed),
    )  # fmt: skip
