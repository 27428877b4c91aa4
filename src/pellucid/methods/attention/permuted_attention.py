"""Permuted attention: does the output care which tokens the attention weights belong to?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import kendalltau

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.attention_rows import AttentionRows, attention_rows, score_rows
from pellucid.engine.output_distance import distance_readout
from pellucid.engine.question import Question, ask
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject


@method(
    rows=("ATT-10",),
    paper="arXiv:1902.10186",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("gradients", "attention"),
    cost="(layers*heads*samples+units+6)*F+B",
)
def permuted_attention(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    layers: Sequence[int] | None = None, heads: Literal["each", "together"] = "each", samples: Positive = 20,
    seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each head by how far the output moves when its attention weights are dealt out to other tokens.

    R = median over permutations of TVD(y(A), y(permuted A)), where TVD is the total variation distance (0 to 1) of the
    output distribution and the permuted weights are those of the position that is read, over the keys it may see. A
    small median beside a large weight says that the weights do not tell what the output depends on. Unsigned;
    a sampled median, with standard errors. The evidence holds, for each layer, the largest weight and Kendall's tau of
    the attention (mean over heads) with gradients |x * df/dx| of the target and with leave-one-out effects, as TVD. The
    paper permutes the one attention layer of its models; here every layer is permuted alone (Jain & Wallace 2019,
    arXiv:1902.10186).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the cross attention is permuted.
        prompt: text, chat or token ids.
        target: one token or class, whose gradients are compared; None means what the model predicts.
        contrast: the alternative to compare with.
        layers: the blocks whose attention is permuted; None means all.
        heads: permute "each" head alone, or all heads of a layer "together", by the same permutation.
        samples: permutations.
        seed: of the permutations.

    Returns:
        Scores [layer, head], or [layer] with heads="together".

    Raises:
        InputError: a layer that the model lacks.
        TargetError: a target of several tokens.
        CapabilityError: a model without an output distribution.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    found = attention_rows(question, layers)
    readout = distance_readout(question, "total_variation")
    rng = np.random.default_rng(seed)
    replaced: list[tuple[int, torch.Tensor]] = []
    for index, row in enumerate(found.rows):
        groups = [slice(None)] if heads == "together" else [slice(head, head + 1) for head in range(len(row))]
        for group in groups:
            replaced += [(index, _permuted(row, group, found.seen[index], rng)) for _ in range(samples)]
    sizes = [1 if heads == "together" else len(row) for row in found.rows]
    moved = score_rows(question, readout, found, replaced)[:, 0].reshape(-1, samples)
    parts = np.split(moved, np.cumsum(sizes)[:-1])
    median, error = (_grid([statistic(part) for part in parts]) for statistic in (_median, _median_error))
    together = heads == "together"
    return Scores(
        title="Permuted attention",
        values=median[:, 0] if together else median,
        axes=("layer",) if together else ("layer", "head"),
        labels={"layer": found.layers},
        unit="total variation distance",
        sign="larger means the output depends more on which tokens are attended to",
        std_error=error[:, 0] if together else error,
        tokens=question.tokens,
        target=question.readout.description,
        evidence=(_agreement(question, found),),
    )


def _permuted(row: torch.Tensor, group: slice, seen: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    new = row.clone()
    new[group, seen] = row[group][:, rng.permutation(seen)]
    return new


def _median(moved: np.ndarray) -> np.ndarray:
    return np.median(moved, 1)


def _median_error(moved: np.ndarray) -> np.ndarray:
    """Return the standard error of medians: half the distance of the order statistics one deviation off the middle."""
    count = moved.shape[1]
    middle, step = (count - 1) / 2, np.sqrt(count) / 2
    low, high = int(np.floor(max(middle - step, 0))), int(np.ceil(min(middle + step, count - 1)))
    ordered = np.sort(moved, 1)
    return (ordered[:, high] - ordered[:, low]) / 2


def _grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack layers; zeros stand for heads that a layer lacks and another has."""
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])


def _agreement(question: Question, found: AttentionRows) -> Evidence:
    """Return largest weights, and how attention ranks the tokens against gradients and leave-one-out effects."""
    embeddings = question.embeddings()
    _, gradient = question.gradient(embeddings[None])
    slopes = (gradient[0].sum(0) * embeddings).sum(-1).abs().double().cpu().numpy()
    units = len(question.units)
    alone = Question(question.subject, question.tokens, question.units, distance_readout(question, "total_variation"))
    effects = alone.score(~np.eye(units, dtype=bool), default_replacement(question.subject))[:, 0]
    curves: dict[str, list[float]] = {"x": [], "largest weight": [], "tau gradient": [], "tau leave-one-out": []}
    for layer, row in zip(found.layers, found.rows, strict=True):
        mean = row.mean(0).numpy()
        weight = np.array([mean[start:end].sum() for start, end in question.units.spans])
        slope = np.array([slopes[start:end].sum() for start, end in question.units.spans])
        for name, value in (
            ("x", float(layer)), ("largest weight", float(row.max())), ("tau gradient", _tau(weight, slope)),
            ("tau leave-one-out", _tau(weight, effects)),
        ):  # fmt: skip
            curves[name].append(value)
    by_gradient, by_effect = (float(np.mean(curves[f"tau {name}"])) for name in ("gradient", "leave-one-out"))
    return Evidence(
        "agreement of attention",
        f"Attention ranks the tokens like gradients with a Kendall tau of {by_gradient:.2f} and like leave-one-out "
        f"effects with {by_effect:.2f}, on average over layers; the largest weight is "
        f"{max(curves['largest weight']):.2f}.",
        {"tau_gradient": by_gradient, "tau_leave_one_out": by_effect, "largest": max(curves["largest weight"])},
        {name: tuple(values) for name, values in curves.items()},
    )


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    """Return Kendall's tau, 0 where one of the two ranks nothing."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    found: Any = kendalltau(one, other)
    return float(found.statistic)
