"""AttriBoT: leave-one-out over a long context at a fraction of its price, by groups and a proxy model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.engine.groups import grouped, shared_out
from pellucid.engine.infilling import same_ids
from pellucid.engine.question import Question, ask
from pellucid.engine.readout import Readout
from pellucid.engine.targets import resolve
from pellucid.engine.variants import default_replacement
from pellucid.models.subject import Subject


@method(
    rows=("N-AT4",),
    paper="arXiv:2411.15102",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="(2*units+4)*F",
)
def attribot(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token", replacement: Replacement | None = None,
    groups: Literal["auto", "word", "sentence", "line", "message"] | Positive = "auto", open_groups: Positive = 4,
    proxy: Subject | None = None, keep: Positive = 8,
) -> Scores:  # fmt: skip
    """Score the units that matter by leave-one-out, found through groups and a proxy model; estimate the others.

    Three ways to save, used together: whole groups are left out first and only the `open_groups` with the largest drop
    are opened; a smaller `proxy` ranks the units of the opened groups and only its top `keep` go to the model; prefixes
    that variants share are computed once (by the engine). For units that reach the model R_i = s(x) - s(x without i),
    exactly occlusion; others keep the proxy's score, or an even share of their group's (approximation). Positive raises
    the target. Tested with proxies of known skill; no pretrained pair of a large and a small model was at hand (Liu et
    al. 2024, arXiv:2411.15102).

    Args:
        subject: the model, from `pellucid.load`, or a black box.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        replacement: "delete", "mask", "pad", "mean", "zero" or a token id; None takes "mask" where the model has a
            mask token, else "delete".
        groups: what is left out first: a coarser kind of unit, a number of equal groups, or "auto".
        open_groups: groups whose units are looked at.
        proxy: a smaller model of the same kind with the same token ids; it then also scores the groups.
        keep: units that the model itself scores when there is a proxy.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`; the evidence says how many units were left out of
        the model itself.

    Raises:
        InputError: a proxy with other token ids or another target.
    """
    question = ask(subject, prompt, target=target, contrast=contrast, unit=unit)
    removal = default_replacement(question.subject) if replacement is None else replacement
    count = len(question.units)
    scout = question if proxy is None else _asked_of(proxy, question, target, contrast)
    parts = grouped(question.subject, question.tokens, question.units, groups)
    values, opened = np.zeros((count, question.readout.size)), np.arange(count)
    if open_groups < len(parts):
        drops = _left_out(scout, [list(part) for part in parts], removal)
        values = shared_out(drops, parts, count)
        best = _highest(drops, open_groups)
        opened = np.array(sorted(i for g in best for i in parts[g]))
    if proxy is not None and keep < len(opened):
        values[opened] = _left_out(scout, [[int(i)] for i in opened], removal)
        opened = opened[np.sort(_highest(values[opened], keep))]
    values[opened] = _left_out(question, [[int(i)] for i in opened], removal)
    return question.answer(values, "AttriBoT").with_evidence(
        Evidence(
            "leave-one-out",
            f"{len(opened)} of {count} units were left out of the model itself; the others are estimated from "
            f"{len(parts)} groups{' and ' + proxy.name if proxy is not None else ''}.",
            {"exact": float(len(opened)), "units": float(count), "groups": float(len(parts))},
        )
    )


def _left_out(question: Question, sets: list[list[int]], removal: Replacement) -> np.ndarray:
    """Return the drop of the target for each left-out set of units: [sets, targets]."""
    present = np.ones((len(sets) + 1, len(question.units)), dtype=bool)
    for row, gone in enumerate(sets):
        present[row + 1, gone] = False
    scores = question.score(present, removal)
    return scores[:1] - scores[1:]


def _highest(drops: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-drops.sum(1), kind="stable")[:count]


def _asked_of(proxy: Subject, question: Question, target: TargetLike, contrast: int | str | None) -> Question:
    """Return the same question to the proxy; what the model itself predicts is named by its ids."""
    subject = question.subject
    if subject.kind == "black-box" or proxy.kind != subject.kind or not same_ids(subject, proxy):
        raise InputError(
            f"{proxy.name} cannot stand in for {subject.name}, because it is of another kind or its token ids differ; "
            "pass a smaller model of the same family."
        )
    ids = question.readout.parts[0].ids
    own: Readout = question.readout
    if own.function is None and own.kind != "vector":
        given = target if isinstance(target, Target) else Target(target)
        kind = "continuation" if given.kind == "generated" else given.kind
        what = ids if own.kind == "next" else ids[0]
        target = replace(given, what=what, kind=kind, measure=own.measure)  # type: ignore[arg-type]
    return Question(proxy, question.tokens, question.units, resolve(proxy, question.tokens, target, contrast))
