"""Integrated directional gradients: the importance of every group in a tree over the units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Baseline, Positive, PromptLike, Quadrature, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.hierarchy import Node, halves
from pellucid.engine.quadrature import nodes
from pellucid.engine.question import Question, ask
from pellucid.models.subject import Subject

Group = tuple[int, int]


@method(
    rows=("FAG-7",),
    paper="doi:10.18653/v1/2021.acl-long.71",
    takes="prompt",
    produces="scores",
    axes=("group",),
    needs=("gradients",),
    cost="(steps*targets+3)*F+steps*targets*B",
)
def integrated_directional_gradients(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", tree: Sequence[tuple[int, int]] | None = None, baseline: Baseline = "zero",
    steps: Positive = 32, quadrature: Quadrature = "gauss_legendre",
) -> Scores:  # fmt: skip
    """Score every group of a constituency tree by the directional gradients of the groups inside it.

    d(S) = |integral over a of the derivative of f along z_S at e' + a (e - e')| / Z, with z_S the unit vector of
    (e - e') on the group S alone; Z makes the d of all groups sum to 1. v(S) = sum of d(T) over groups T inside S, so
    that the root has 1 and v grows upwards. Unsigned. Exact up to the quadrature; units are the leaves, without the
    paper's further split into dimensions (Sikdar et al. 2021).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        tree: the inner nodes, each as (first unit, last unit + 1), nested or disjoint; None means halves of halves.
        baseline: "zero", "mean", "mask", "pad", a token id, or embeddings ([dimension] or [positions, dimension]).
        steps: nodes of the quadrature.
        quadrature: "gauss_legendre", "trapezoid", "riemann_left", "riemann_right" or "riemann_middle".

    Returns:
        Scores [group], the units first and the root last; [group, target] for a target with `each`.

    Raises:
        InputError: a tree whose groups cross, or name units that are not there.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    groups = _groups(len(question.units), tree)
    end = question.embeddings()
    start = question.baseline(baseline, end)
    places, weights = nodes(quadrature, steps)
    path = start + torch.as_tensor(places).to(end).view(-1, 1, 1) * (end - start)
    slopes = np.einsum("s,sut->ut", weights, question.slopes(path, end - start))
    spans = question.units.spans
    squares = np.array([float((end - start)[a:b].double().square().sum()) for a, b in spans])
    dividends = []
    for first, last in groups:
        size = squares[first:last].sum() ** 0.5
        dividends.append(np.abs(slopes[first:last].sum(0)) / size if size else np.zeros(slopes.shape[1]))
    share = np.stack(dividends)
    total = share.sum(0, keepdims=True)
    share = np.divide(share, total, out=np.zeros_like(share), where=total != 0)
    values = np.stack([share[[a <= c and d <= b for c, d in groups]].sum(0) for a, b in groups])
    return _answer(question, groups, values)


def _groups(count: int, tree: Sequence[Group] | None) -> list[Group]:
    """Return all groups, every one once: units, then larger ones, the root last."""
    inner = _inner(halves(range(count))) if tree is None else [(int(a), int(b)) for a, b in tree]
    for a, b in inner:
        if not 0 <= a < b <= count:
            raise InputError(
                f"The group ({a}, {b}) of the tree is out of range; the prompt has units 0 to {count - 1}."
            )
        crossing = [(c, d) for c, d in inner if a < c < b < d]
        if crossing:
            raise InputError(
                f"The groups ({a}, {b}) and {crossing[0]} of the tree cross; nest them or keep them apart."
            )
    found = {(i, i + 1) for i in range(count)} | set(inner) | {(0, count)}
    return sorted(found, key=lambda group: (group[1] - group[0], group[0]))


def _inner(node: Node) -> list[Group]:
    own = [(node.members[0], node.members[-1] + 1)]
    return own + [group for part in node.parts for group in _inner(part)]


def _answer(question: Question, groups: list[Group], values: np.ndarray) -> Scores:
    readout, labels = question.readout, question.units.labels
    names = {"group": tuple("".join(labels[a:b]) for a, b in groups)}
    return Scores(
        title="Integrated directional gradients",
        values=values if readout.each else values[:, 0],
        axes=("group", "target") if readout.each else ("group",),
        labels=names | ({"target": readout.labels} if readout.each else {}),
        unit="share",
        sign="larger means that the group and what is inside it matter more",
        target=readout.description,
    )
