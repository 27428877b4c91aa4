"""Perturbed masking: how far masking one word moves the representation of another, and the tree in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens, Units
from pellucid.engine.capture import expand, part_name
from pellucid.engine.planning import in_batches
from pellucid.engine.targets import resolve
from pellucid.engine.trees import projective_tree, spanning_tree
from pellucid.engine.variants import Variant, default_replacement, remove, row
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

Distance = Literal["euclid", "prob"]
Tree = Literal["projective", "spanning"]


@method(
    rows=("FAP-4",),
    paper="arXiv:2004.14786",
    takes="prompt",
    produces="scores",
    axes=("unit", "other_unit"),
    needs=("activations",),
    cost="(units*(units+1)/2+1)*F",
)
def perturbed_masking(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token", layer: int = -1,
    distance: Distance = "euclid", replacement: Replacement | None = None, tree: Tree = "projective",
) -> Scores:  # fmt: skip
    """Score each pair of units by how far masking j moves the representation of the masked i, and decode a tree.

    F_ij = d(H(x without {i})_i, H(x without {i, j})_i), d the Euclidean distance of the block's output at i, or with
    distance="prob" p(x_i | x without {i}) - p(x_i | x without {i, j}). Units of several tokens take the mean over
    them. Exact for what it states; on a causal model a unit sees nothing to its right, so F_ij = 0 there. The
    heaviest tree (arc from head h to dependent d: F_dh) is in the evidence; whether it is syntax is for a treebank to
    say, and no pretrained masked language model was at hand to try it on one (Wu et al. 2020, arXiv:2004.14786).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is read.
        prompt: text, chat or token ids.
        target: only names the target in the result; none is needed.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        layer: the block whose output is compared; negative ones count from the last.
        distance: "euclid", or "prob" for masked language models.
        replacement: "mask", "pad", "mean", "zero" or a token id; None takes the mask token, or "mean" without one.
        tree: "projective" (Eisner: arcs do not cross) or "spanning" (Chu-Liu/Edmonds).

    Returns:
        Scores [unit, other_unit]: row i says what moves unit i; the diagonal is 0.

    Raises:
        CapabilityError: distance="prob" on a model that is no masked language model.
        InputError: a layer the model lacks, or replacement="delete", which leaves no place to compare.
    """
    tokens = subject.encode(prompt)
    units = subject.units(tokens, unit)
    described = resolve(subject, tokens, target).description if target is not None else "the units themselves"
    if distance == "prob" and subject.head != "masked-lm":
        raise CapabilityError(
            f"distance='prob' needs a masked language model, but {subject.name} has the head {subject.head}; use "
            "distance='euclid'."
        )
    removal = default_replacement(subject) if replacement is None else replacement
    removal = "mean" if removal == "delete" and replacement is None else removal
    if removal == "delete" or len(units) == 0:
        raise InputError(
            f"Perturbed masking compares {len(units)} units at their places and got replacement={removal!r}; give a "
            "prompt with units and use 'mask', 'pad', 'mean', 'zero' or a token id."
        )
    values = _impact(subject, tokens, units, _site(subject, layer), distance, removal)
    heads = (projective_tree if tree == "projective" else spanning_tree)(values)
    return Scores(
        title="Perturbed masking", values=values, axes=("unit", "other_unit"), tokens=tokens, units=units,
        labels={"unit": units.labels, "other_unit": units.labels}, target=described,
        unit="distance" if distance == "euclid" else "prob", sign="larger means that the other unit matters more",
        evidence=(_tree(values, heads, units, tree),),
    )  # fmt: skip


def _site(subject: Subject, layer: int) -> str:
    names = expand(subject, part_name(subject, "resid_post"))
    if not -len(names) <= layer < len(names):
        raise InputError(f"Layer {layer} was asked for, but the model has {len(names)}; use 0 to {len(names) - 1}.")
    return names[layer]


def _impact(
    subject: Subject, tokens: Tokens, units: Units, site: str, distance: Distance, removal: Replacement
) -> np.ndarray:
    """Return F [units, units]; a pair of masked units serves both of its directions."""
    count = len(units)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    present = np.ones((len(pairs), count), dtype=bool)
    for place, pair in enumerate(pairs):
        present[place, list(pair)] = False
    variants = [remove(subject, tokens, units, mask, removal) for mask in present]
    probable = distance == "prob"

    def run(batch: list[tuple[Variant, tuple[int, int]]]) -> list[list[np.ndarray]]:
        rows = [row(subject, tokens, variant) for variant, _ in batch]
        output = forward(subject, rows, capture=() if probable else [site])
        seen = [output.logits[i] if probable else output.row(site, i) for i in range(len(batch))]
        return [[_read(seen[i], tokens, units.spans[u], probable) for u in pair] for i, (_, pair) in enumerate(batch)]

    with torch.no_grad():
        found = in_batches(list(zip(variants, pairs, strict=True)), [len(tokens)] * len(pairs), run)
    alone = {i: read[0] for (i, j), read in zip(pairs, found, strict=True) if i == j}
    values = np.zeros((count, count))
    for (i, j), (of_i, of_j) in zip(pairs, found, strict=True):
        for unit, other, seen in ((i, j, of_i), (j, i, of_j)):
            change = alone[unit] - seen
            values[unit, other] = float(change[0]) if probable else float(np.linalg.norm(change))
    return values


def _read(value: torch.Tensor, tokens: Tokens, span: tuple[int, int], probable: bool) -> np.ndarray:
    """Return the mean over a unit's tokens of the vectors, or of the probability of the token that stands there."""
    here = value[span[0] : span[1]].double()
    if probable:
        ids = torch.tensor(tokens.ids[span[0] : span[1]], device=here.device)
        here = here.softmax(-1).gather(-1, ids[:, None])
    mean: np.ndarray = here.mean(0).cpu().numpy()
    return mean


def _tree(values: np.ndarray, heads: Sequence[int], units: Units, kind: Tree) -> Evidence:
    arcs = [f"{units.labels[d].strip()} <- {units.labels[h].strip()}" for d, h in enumerate(heads) if h >= 0]
    weight = float(sum(values[d, h] for d, h in enumerate(heads) if h >= 0))
    root = list(heads).index(-1)
    return Evidence(
        "tree",
        f"The heaviest {kind} tree has the root {units.labels[root].strip()!r}: {', '.join(arcs) or 'no arcs'}.",
        {"weight": weight, "root": float(root)},
        {"x": tuple(float(i) for i in range(len(heads))), "head": tuple(float(h) for h in heads)},
    )
