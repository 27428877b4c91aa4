"""Ablation: replace the output of one head, neuron group or layer and see what the target loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat, PromptLike, SiteName, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.coalitions import standard_error
from pellucid.engine.cone import score_edits
from pellucid.engine.over_pairs import against_null, as_far, paired
from pellucid.engine.question import Question
from pellucid.engine.replacement_values import replacement_values
from pellucid.engine.several import ask_several
from pellucid.engine.site_gradients import stacked
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

Fill = Callable[[str, torch.Tensor], torch.Tensor]


@method(
    rows=("MEC-5", "MEC-2"),
    paper="arXiv:2211.00593",
    takes="prompt",
    produces="scores",
    axes=("layer", "head"),
    needs=("activations",),
    cost="((samples+1)*layers*heads+8)*F",
)
def ablation(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    others: Sequence[Any] = (), other_targets: Sequence[Any] | None = None, site: SiteName = "attn.z",
    value: Literal["zero", "mean", "resample", "noise"] = "mean", references: Sequence[Any] = (),
    per_position: bool = False, group: Positive = 1, noise: PositiveFloat = 1.0, samples: Positive = 1, seed: Count = 0,
) -> Scores:  # fmt: skip
    """Score each part of a site by what the target loses when that part's output is replaced at all positions.

    R[l, h] = f(x) - f(x with part h of layer l replaced); positive means that the part raises the target. "mean" is the
    mean over all reference prompts and all their positions (with `per_position`, over the prompts at each position),
    "resample" takes each position's value from a random reference position, "noise" adds Gaussian noise of `noise`
    standard deviations of each component. Exact for the values drawn; with standard errors over prompts, paired, or
    over draws. Beside it stands a null: the same parts moved as far in a random direction (Wang et al. 2022,
    arXiv:2211.00593; Olsson et al. 2022, arXiv:2209.11895).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: what to explain; None means what the model predicts.
        contrast: the alternative to compare with.
        others: further prompts to average over; each costs as much as the first.
        other_targets: a target for each of the others; None takes `target`.
        site: what is replaced: "attn.z" for heads, "mlp.post" for neurons, "attn.out", "mlp.out", "resid_post" ...
        value: what takes its place.
        references: prompts that means, draws and deviations come from; none means those that are scored.
        per_position: take means and draws from the same position of the references.
        group: neurons that are replaced together.
        noise: standard deviations of noise.
        samples: draws of "resample" and "noise".
        seed: of draws and of the null.

    Returns:
        Scores [layer, head], [layer, neuron] (groups of neurons) or [layer].

    Raises:
        InputError: a site without positions, or references that are shorter than a prompt with `per_position`.
        SiteError: a site that the model lacks.
    """
    asked = ask_several(subject, prompt, others, target=target, contrast=contrast, other_targets=other_targets)
    names = expand(subject, part_name(subject, site))
    axes = parse_site(names[0]).axes
    if axes[0] != "position":
        raise InputError(f"The site {site!r} has no positions; ablate attn.z, mlp.post, mlp.out or the like.")
    own = [capture(subject, question.tokens, names) for question in asked]
    pool = [capture(subject, reference, names) for reference in references] or own
    draws = samples if value in ("resample", "noise") else 1
    generator = torch.Generator().manual_seed(seed)

    def fill(name: str, plain: torch.Tensor) -> torch.Tensor:
        return replacement_values([one[name] for one in pool], plain, value, per_position, noise, generator)

    effects, nulls = [], []
    for question, values in zip(asked, own, strict=True):
        moved, null = _effects(question, names, values, fill, group, draws, generator)
        effects.append(moved)
        nulls.append(null)
    title = f"Ablation of {site}, {value}" + (f", over {len(asked)} prompts" if len(asked) > 1 else "")
    found = np.stack([draw.mean(0) for draw in effects])
    result = _answer(title, asked[0], found, found if len(asked) > 1 else effects[0], axes[1], group)
    return result.with_evidence(against_null(found, np.stack(nulls)), *([paired(found)] if len(asked) > 1 else []))


def _answer(title: str, first: Question, found: np.ndarray, draws: np.ndarray, axis: str, group: int) -> Scores:
    """Return the mean of effects [prompts, layers, parts], with the error of draws (or prompts) where several."""
    vector = axis == "dimension"
    values, error = found.mean(0), None if len(draws) < 2 else standard_error(draws)
    return Scores(
        title=title,
        values=values[:, 0] if vector else values,
        axes=("layer",) if vector else ("layer", axis),
        labels={"layer": tuple(str(i) for i in range(len(values)))} | _groups(vector, group, values.shape[-1]),
        unit=first.readout.unit,
        sign="positive means that the part raises the target",
        tokens=first.tokens,
        std_error=error[:, 0] if vector and error is not None else error,
        target=first.readout.description,
    )


def _groups(vector: bool, group: int, count: int) -> dict[str, tuple[str, ...]]:
    return {"neuron": tuple(f"{i * group}+" for i in range(count))} if group > 1 and not vector else {}


def _effects(
    question: Question, names: list[str], values: dict[str, torch.Tensor], fill: Fill, group: int, draws: int,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the effects [draws, layers, parts] on one prompt and those of a random change of equal norm."""
    axes = parse_site(names[0]).axes
    places = list(range(len(question.tokens)))
    size = 1 if axes[1] == "head" else group if axes[1] == "neuron" else values[names[0]].shape[1]
    sets: list[tuple[Edit, ...]] = [()]
    for draw in range(draws + 1):
        for name in names:
            plain = values[name]
            new = fill(name, plain)
            for start in range(0, plain.shape[1], size):
                part = slice(start, min(start + size, plain.shape[1]))
                where: dict[str, Any] = {"position": places}
                if axes[1] != "dimension":
                    where[axes[1]] = list(range(part.start, part.stop))
                changed = new[:, part]
                if draw == draws:
                    changed = as_far(plain[:, part], changed, range(1, plain.ndim), generator)
                sets.append((Edit(name, "set", changed, where),))
    scores = score_edits(question.subject, question.tokens, question.readout, sets).sum(1)
    counts = [-(-values[name].shape[1] // size) for name in names]
    found = (scores[0] - scores[1:]).reshape(draws + 1, -1)
    ends = np.cumsum(counts)[:-1]
    grids = np.stack([stacked(np.split(draw, ends)) for draw in found])  # layers may differ in width
    return grids[:draws], grids[draws]
