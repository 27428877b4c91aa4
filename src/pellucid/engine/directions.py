"""Directions in activations: values of prompts at one position of each layer, and how well a direction parts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.stats import rankdata

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.results import Evidence, Learned
from pellucid.engine.capture import expand, part_name
from pellucid.engine.planning import in_batches
from pellucid.engine.variants import row, whole
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

At = int | Literal["mean"]


@dataclass(frozen=True, eq=False)
class Activations:
    """Values of prompts at a part of each layer: [layer, prompt, ..., dimension], a head axis between for `attn.z`.

    `layers` names the layers of the first axis; `norms` [layer, ...] is the mean norm of the values, the unit in which
    steering coefficients are counted.
    """

    values: np.ndarray
    layers: tuple[int, ...]
    site: str

    @property
    def norms(self) -> np.ndarray:
        """Return the mean norm over prompts: [layer, ...]."""
        return np.linalg.norm(self.values, axis=-1).mean(1)


@dataclass(frozen=True, eq=False)
class Contrast:
    """Activations of prompts with a property (label 1) and without (0); `held` marks those that only test."""

    read: Activations
    labels: np.ndarray
    held: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """Return the values that are learned from, of prompts with the property: [layer, prompt, ..., dimension]."""
        return self.read.values[:, (self.labels == 1) & ~self.held]

    @property
    def negative(self) -> np.ndarray:
        """Return the values that are learned from, of prompts without it: [layer, prompt, ..., dimension]."""
        return self.read.values[:, (self.labels == 0) & ~self.held]


@torch.no_grad()
def activations(
    subject: Subject, prompts: Sequence[Any], site: str, *, layers: Sequence[int] | None = None, position: At = -1,
    starts: Sequence[int] = (),
) -> Activations:  # fmt: skip
    """Return the values of prompts at one position of a block part, in float32 (float64 models: float64).

    Costs one forward per prompt up to the highest layer asked for; nothing behind it runs. Prompts run in batches of
    similar length, the position is picked on the device and each batch is copied once.

    Args:
        subject: the model; its edits are active.
        prompts: texts, chats or token ids.
        site: a block part such as "resid_post" or "attn.z".
        layers: which blocks; None means all.
        position: an index into each prompt, negative from its end, or "mean" over all its tokens.
        starts: for "mean", the position of each prompt from which on its tokens count (those of a reply); none for 0.

    Raises:
        InputError: no prompts, a text in place of a list, or a position outside a prompt.
        SiteError: a site or layer that the model lacks.
    """
    if isinstance(prompts, str) or len(prompts) == 0:
        raise InputError(
            f"Directions are read from a list of prompts, but got {prompts if isinstance(prompts, str) else 'none'!r}; "
            "give texts or lists of token ids."
        )
    pattern = part_name(subject, site)
    names = expand(subject, pattern)
    if layers is not None:
        names = [str(parse_site(pattern.replace("*", str(_layer(layer, len(names)))))) for layer in layers]
    tokens = [subject.encode(prompt) for prompt in prompts]
    if position != "mean":
        for number, one in enumerate(tokens):
            if not -len(one) <= position < len(one):
                raise InputError(
                    f"Position {position} was asked for, but prompt {number + 1} has {len(one)} tokens; use a position "
                    "that every prompt has."
                )
    wide = torch.float64 if subject.dtype == "float64" else torch.float32

    def run(batch: list[int]) -> list[torch.Tensor]:
        rows = [row(subject, tokens[i], whole(tokens[i])) for i in batch]
        output = forward(subject, rows, capture=names, stop=True)
        subject.count(forwards=len(rows))
        begins = [starts[i] if len(starts) else 0 for i in batch]
        found = [_picked(output.captured[name], output.lengths, position, begins, wide) for name in names]
        return list(torch.stack([one.to(found[0].device) for one in found], 1).cpu())

    found = in_batches(range(len(tokens)), [len(one) for one in tokens], run)
    values = torch.stack(found, 1).numpy()
    if not np.isfinite(values).all():
        raise InputError(
            f"The activations of {subject.name} at {site} hold NaN or infinite values, so no direction can be read; "
            "load the model in float32."
        )
    return Activations(values, tuple(int(parse_site(name).layer or 0) for name in names), pattern.split("*.")[-1])


def contrast(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], site: str, *,
    layers: Sequence[int] | None = None, position: At = -1, starts: Sequence[int] = (), test_share: float = 0.25,
    seed: int = 0,
) -> Contrast:  # fmt: skip
    """Return the activations of two sets of prompts, read in one pass over both, some of each held out to test.

    Where both sets are equally long, prompts are taken as pairs and held out together. Sets of fewer than four prompts
    hold none out.

    Args:
        subject: the model; its edits are active.
        positive: prompts with the property.
        negative: prompts without it.
        site: a block part.
        layers: which blocks; None means all.
        position: as in `activations`.
        starts: as in `activations`, for the positive prompts and then the negative ones.
        test_share: share of each set that only tests.
        seed: of the split.

    Raises:
        InputError: an empty set, or as in `activations`.
    """
    for name, given in (("positive", positive), ("negative", negative)):
        if isinstance(given, str) or len(given) == 0:
            raise InputError(
                f"A direction is read from two lists of prompts, but {name} is "
                f"{'one text' if isinstance(given, str) else 'empty'}; give one or more prompts in each."
            )
    read = activations(subject, [*positive, *negative], site, layers=layers, position=position, starts=starts)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return Contrast(read, labels, held_out(labels, test_share, seed))


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which items only test: a share of each class at random, the same places in classes of equal size."""
    held = np.zeros(len(labels), dtype=bool)
    sizes = [int((labels == label).sum()) for label in np.unique(labels)]
    alike = len(set(sizes)) == 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, 0 if alike else int(label)])
        count = min(len(members) - 1, round(share * len(members))) if min(sizes) >= 4 else 0
        held[members[rng.permutation(len(members))[:count]]] = True
    return held


def unit(vectors: np.ndarray, what: str = "direction") -> np.ndarray:
    """Return vectors of length one along the last axis; raise `InputError` for one of length zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 1e-12).all()):
        raise InputError(
            f"A {what} came out as zero, because the prompts of both sets have the same activations; give prompts that "
            "differ in what is read."
        )
    return vectors / lengths


def area_under_roc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the chance that an item of class 1 scores above one of class 0, ties counting one half."""
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def learned_direction(
    title: str, data: Contrast, directions: np.ndarray, *, seed: int = 0, settings: dict[str, Any] | None = None
) -> Learned:
    """Return directions [layer, dimension] as a result, with their unit, their thresholds and how well they part data.

    Directions are made unit vectors. `offsets` [layer] is the projection half-way between the means of both sets;
    settings name the layer that parts the tested prompts best, which `Steering` takes unless told otherwise.
    """
    directions = unit(directions)
    read, used = data.read, data.held if data.held.any() else np.ones(len(data.labels), dtype=bool)
    projected = np.einsum("lpd,ld->lp", read.values, directions)
    halves = [projected[:, (data.labels == label) & ~data.held].mean(1) for label in (0, 1)]
    areas = np.array([area_under_roc(data.labels[used], one[used]) for one in projected])
    spread = [_standardised(data.labels[used], one[used]) for one in projected]
    best = int(np.argmax(spread))
    return Learned(
        title=title,
        tensors={"directions": directions, "scales": read.norms, "offsets": (halves[0] + halves[1]) / 2},
        apply="direction",
        site=read.site,
        settings={"layers": list(read.layers), "layer": read.layers[best], **(settings or {})},
        evidence=(
            _parting(read.layers, areas, best, int(used.sum()), bool(data.held.any()), _chance(data, used, seed)),
        ),
    )


def _standardised(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the gap of both classes' means in units of their spread."""
    one, none = scores[labels == 1], scores[labels == 0]
    return float((one.mean() - none.mean()) / np.sqrt((one.var() + none.var()) / 2 + 1e-12 * (1 + scores.var())))


def _chance(data: Contrast, used: np.ndarray, seed: int) -> float:
    """Return the mean area that random directions reach, whichever way round they point."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((20, data.read.values.shape[-1]))
    last = data.read.values[-1][used] @ drawn.T
    areas = np.array([area_under_roc(data.labels[used], one) for one in last.T])
    return float(np.maximum(areas, 1 - areas).mean())


def _parting(
    layers: tuple[int, ...], areas: np.ndarray, best: int, count: int, held: bool, chance: float
) -> Evidence:  # fmt: skip
    return Evidence(
        "parting of the two sets",
        f"On {count} prompts {'that were not learned from' if held else 'it was learned from'}, the projection on the "
        f"direction of layer {layers[best]} parts the two sets with an area under the ROC curve of {areas[best]:.3f} "
        f"(guessing 0.5; random directions, turned the right way, {chance:.3f}).",
        {"auroc": float(areas[best]), "random": chance, "prompts": float(count), "layer": float(layers[best])},
        {"x": tuple(float(layer) for layer in layers), "area under the ROC curve": tuple(areas.tolist())},
        ok=bool(areas[best] > chance) if held else None,
    )


def _layer(layer: int, count: int) -> int:
    return layer + count if -count <= layer < 0 else layer


def _picked(
    value: torch.Tensor, lengths: Sequence[int], position: At, begins: Sequence[int], wide: torch.dtype
) -> torch.Tensor:
    """Return the value at one position of every row, or the mean over its tokens: [row, ..., dimension]."""
    if position == "mean":
        spans = enumerate(zip(begins, lengths, strict=True))
        return torch.stack([value[i, begin:length].to(wide).mean(0) for i, (begin, length) in spans])
    places = torch.tensor([position if position >= 0 else length + position for length in lengths])
    return value[torch.arange(len(lengths), device=value.device), places.to(value.device)].to(wide)
