"""Universality: which neurons or heads of one model have a twin in another that does the same on the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction
from pellucid.core.results import Evidence, Scores
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.planning import check_cancelled
from pellucid.models.subject import Subject

AT_ONCE = 2048


@method(
    rows=("MEC-1",),
    paper="arXiv:2401.12181",
    takes="models",
    produces="scores",
    axes=("layer", "neuron"),
    needs=("activations",),
    cost="models*prompts*F",
)
def universality(
    models: Sequence[Subject], prompts: Sequence[Any], *, part: Literal["neurons", "heads"] = "neurons",
    threshold: Fraction = 0.5, seed: Count = 0,
) -> Scores:  # fmt: skip
    """Score each neuron or head of the first model by its most correlated partner in the second.

    rho(i) = max over j of the Pearson correlation of the values of i and j on the same tokens: activations of neurons,
    attention weights (of visible keys) of heads, over all layers. As a null, the values of the second model's layers
    are rotated at random: what any basis of its activations would reach (Gurnee et al. 2024, arXiv:2401.12181; the
    claim is that of Olah et al. 2020). Correlations are exact for the prompts given; few tokens make them high by
    chance, which the null shows.

    Args:
        models: two models with one tokenizer, such as of two seeds, sizes or stages of training.
        prompts: texts, chats or token ids.
        part: "neurons" (`mlp.post`) or "heads" (`attn.pattern`).
        threshold: excess over the null from which a part counts as universal.
        seed: of the rotation.

    Returns:
        Scores [layer, neuron] or [layer, head], with the name of the partner as word. How many exceed the null is in
        the evidence.

    Raises:
        InputError: not two models, models that read the prompts differently, or layers of different widths.
        SiteError: neurons of a model whose experts are computed jointly.
    """
    if len(models) != 2:
        raise InputError(f"universality compares two models, but got {len(models)}; give two.")
    site = "mlp.post" if part == "neurons" else "attn.pattern"
    first, second = (_values(subject, prompts, site) for subject in models)
    if first[0].shape[0] != second[0].shape[0]:
        raise InputError(
            f"The models read the prompts as {first[0].shape[0]} and {second[0].shape[0]} values, which cannot be "
            "compared one by one; give models with one tokenizer."
        )
    if len({layer.shape[1] for layer in first}) > 1:
        raise InputError("The layers of the first model have different widths; swap the models, or compare views.")
    generator = torch.Generator().manual_seed(seed)
    found, partner = _best(first, second)
    null, _ = _best(first, [_rotated(layer, generator) for layer in second])
    names = [f"{layer}.{i}" for layer, values in enumerate(second) for i in range(values.shape[1])]
    return Scores(
        title=f"Universality of {part}",
        values=found.reshape(len(first), -1),
        axes=("layer", "neuron" if part == "neurons" else "head"),
        labels={"layer": tuple(str(i) for i in range(len(first)))},
        unit="correlation",
        sign="1 means that the other model has the same part",
        target=f"the most correlated of {len(names)} {part} of {models[1].name}",
        words=tuple(names[i] for i in partner),
    ).with_evidence(_beyond(found, null, threshold, part))


def _beyond(found: np.ndarray, null: np.ndarray, threshold: float, part: str) -> Evidence:
    """Return how many parts correlate more than rotated activations would."""
    universal = float((found - null > threshold).mean())
    return Evidence(
        "null of rotated activations",
        f"The best correlation is {found.mean():.2f} on average, with randomly rotated layers of the second model "
        f"{null.mean():.2f}; {100 * universal:.1f} % of the {part} exceed that by more than {threshold:g}.",
        {"mean": float(found.mean()), "null": float(null.mean()), "universal": universal},
    )


def _values(subject: Subject, prompts: Sequence[Any], site: str) -> list[torch.Tensor]:
    """Return per layer the values of every part on all prompts: [values, parts], centred and of length 1."""
    names = expand(subject, part_name(subject, site))
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for prompt in prompts:
        check_cancelled()
        found = capture(subject, prompt, names)
        for name in names:
            value = found[name].double().cpu()
            if site == "attn.pattern":
                seen = torch.ones(value.shape[1:], dtype=torch.bool)
                value = value[:, seen.tril() if subject.kind == "decoder" else seen].T
            rows[name].append(value)
    if not prompts:
        raise InputError("There are no prompts to compare the models on; give one or more.")
    return [_unit(torch.cat(rows[name])) for name in names]


def _unit(values: torch.Tensor) -> torch.Tensor:
    values = values - values.mean(0)
    length = values.norm(dim=0)
    return torch.where(length > 1e-9, values / length.clamp(min=1e-9), 0.0)


def _rotated(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a layer's values in a random orthogonal basis."""
    width = values.shape[1]
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=values.dtype))[0]
    return _unit(values @ basis)


def _best(first: list[torch.Tensor], second: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return for every part of the first model the largest correlation with one of the second, and which that is."""
    there = torch.cat(second, 1)
    largest = [(part.T @ there).max(1) for layer in first for part in layer.split(AT_ONCE, 1)]
    values, index = (torch.cat([one[i] for one in largest]) for i in (0, 1))
    return values.numpy(), index.numpy()
