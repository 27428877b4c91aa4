"""Attention erasure: take attention weights away, one or many, and see whether the output and the decision follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Units
from pellucid.engine.attention_rows import AttentionRows, attention_rows, score_rows
from pellucid.engine.decision import decided
from pellucid.engine.output_distance import distance_readout
from pellucid.engine.patterns import gradients_at_patterns
from pellucid.engine.question import Question, ask
from pellucid.models.subject import Subject

ORDERS = ("attention", "gradient", "attention x gradient", "random")


@method(
    rows=("ATT-12",),
    paper="arXiv:1906.03731",
    takes="prompt",
    produces="scores",
    axes=("layer", "unit"),
    needs=("gradients", "attention"),
    cost="(layers*units*(4+rounds)+8)*F+B",
)
def attention_erasure(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", layers: Sequence[int] | None = None, rounds: Positive = 3, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit in each layer by how far the output moves when the attention to it is erased.

    R[l, u] = JS(y, y without the weights of u), the Jensen-Shannon divergence of output distributions (0 to log 2):
    in layer l alone, all heads of the position that is read give u no weight and the others are scaled to the same sum.
    Unsigned, exact. The evidence answers the paper's two questions, per layer: by how much more than the mean of all
    other units the most attended one moves the output (there positive, attention points to what matters), and which
    share of the units must be erased until the decision flips, in the order of attention, of the gradient of the
    decision margin, of their product, and at random (1 where nothing flips it). The paper erases in the one attention
    layer of its models (Serrano & Smith 2019, arXiv:1906.03731).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the cross attention is erased.
        prompt: text, chat or token ids.
        target: the decision, one token or class; None means what the model predicts.
        contrast: decide against this alternative alone.
        unit: "token", "word", "sentence", "line", "message" or token ranges; special tokens keep their weights.
        layers: the blocks whose attention is erased; None means all.
        rounds: random orders.
        seed: of the random orders.

    Returns:
        Scores [layer, unit].

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a target of several tokens.
        CapabilityError: a model without an output distribution.
    """
    question = decided(ask(subject, prompt, target=target, contrast=contrast, unit=unit))
    found = attention_rows(question, layers)
    units = question.units
    singles = [(i, _erased(row, units, [u])) for i, row in enumerate(found.rows) for u in range(len(units))]
    moved = score_rows(question, distance_readout(question, "jensen_shannon"), found, singles)
    effects = moved[:, 0].reshape(len(found.rows), len(units))
    return Scores(
        title="Attention erasure",
        values=effects,
        axes=("layer", "unit"),
        labels={"layer": found.layers, "unit": units.labels},
        unit="Jensen-Shannon divergence (nats)",
        sign="larger means the output depends more on the attention to the unit",
        tokens=question.tokens,
        units=units,
        target=question.readout.description,
        evidence=(_largest(found, units, effects), _until_flipped(question, found, rounds, seed)),
    )


def _erased(row: torch.Tensor, units: Units, gone: Sequence[int]) -> torch.Tensor:
    """Return weights [head, key] without those of some units, scaled to the sum they had (zeros where none is left)."""
    new = row.clone()
    for number in gone:
        start, end = units.spans[number]
        new[:, start:end] = 0
    left = new.sum(-1, keepdim=True)
    return torch.where(left > 0, new * row.sum(-1, keepdim=True) / left.clamp(min=torch.finfo(row.dtype).tiny), new)


def _by_unit(values: np.ndarray, units: Units) -> np.ndarray:
    return np.array([values[start:end].sum() for start, end in units.spans])


def _largest(found: AttentionRows, units: Units, effects: np.ndarray) -> Evidence:
    """Return by how much more the most attended unit moves the output than all others do on average."""
    more, weights = [], []
    for row, effect in zip(found.rows, effects, strict=True):
        weight = _by_unit(row.mean(0).numpy(), units)
        top = int(weight.argmax())
        others = np.delete(effect, top)
        more.append(float(effect[top] - (others.mean() if len(others) else 0.0)))
        weights.append(float(weight[top]))
    share = float(np.mean(np.array(more) > 0))
    return Evidence(
        "largest weight",
        f"Erasing the most attended unit moves the output more than erasing another one in {100 * share:.0f} % of the "
        f"layers, on average by {np.mean(more):+.2g}.",
        {"more": float(np.mean(more)), "layers": share},
        {"x": tuple(float(layer) for layer in found.layers), "weight": tuple(weights), "more": tuple(more)},
    )


def _until_flipped(question: Question, found: AttentionRows, rounds: int, seed: int) -> Evidence:
    """Return the share of units to erase until the decision flips, by order and layer."""
    units = question.units
    margin, slopes = gradients_at_patterns(question, found.sites)
    whole = float(margin[0])
    table = np.zeros((len(found.rows), len(ORDERS)))
    for i, (site, row) in enumerate(zip(found.sites, found.rows, strict=True)):
        slope = slopes[site][1][0][:, found.query, : row.shape[1]] * (1 if whole > 0 else -1)
        ranked = [_by_unit(values.numpy(), units) for values in (row.mean(0), slope.sum(0), (row * slope).sum(0))]
        rng = np.random.default_rng(seed + i)
        ranked += [rng.permutation(len(units)) for _ in range(rounds)]
        shares = _shares(question, found, i, [np.argsort(-values, kind="stable") for values in ranked], whole > 0)
        table[i] = [*shares[:3], np.mean(shares[3:])]
    means = {name: float(value) for name, value in zip(ORDERS, table.mean(0), strict=True)}
    return Evidence(
        "erased until the decision flips",
        "On average over layers, the share of units to erase is "
        + ", ".join(f"{value:.2f} ({name})" for name, value in means.items())
        + f"; the margin is {whole:.2g}.",
        {**means, "margin": whole},
        {"x": tuple(float(layer) for layer in found.layers),
         **{name: tuple(table[:, kind].tolist()) for kind, name in enumerate(ORDERS)}},
    )  # fmt: skip


def _shares(
    question: Question, found: AttentionRows, layer: int, orders: Sequence[np.ndarray], decision: bool
) -> np.ndarray:
    """Return for each order of the units the share of them to erase until the margin changes sign (1: never)."""
    units = question.units
    prefixes = [order[:count].tolist() for order in orders for count in range(1, len(units))]
    if not prefixes:
        return np.ones(len(orders))
    replaced = [(layer, _erased(found.rows[layer], units, gone)) for gone in prefixes]
    margins = score_rows(question, question.readout, found, replaced)[:, 0].reshape(len(orders), -1)
    flipped = (margins > 0) != decision
    return np.where(flipped.any(1), (flipped.argmax(1) + 1) / len(units), 1.0)
