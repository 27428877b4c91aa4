"""A small network that turns the gradient of a fact into a change of weights: MEND's editor, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.facts import as_facts
from pellucid.core.results import Learned, WeightEdit
from pellucid.engine.down_projection import DownProjection, down_projections, weight_edit
from pellucid.engine.edit_factors import Factors, edit_factors, rows_of
from pellucid.engine.editor_check import need_editor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pellucid.models.subject import Subject

APPLY = "gradient_editor"
TINY = 1e-8


def new_editor(
    factors: Sequence[Sequence[Factors]], hidden: int, rate: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return the tensors of an editor that changes nothing of a gradient but its scale.

    One network for all layers, which have one shape: means and deviations of keys and gradients over the training
    facts, matrices `down` [hidden, width] and `up` [width, hidden] around a rectifier with `up` = 0, per layer a
    `scale` = 1 and an `offset` = 0 of the hidden units, and per layer the logarithm of its learning `rate`.

    Args:
        factors: per row and layer, from the training facts.
        hidden: size of the hidden layer.
        rate: first learning rate, as the share by which a step along the gradient changes a matrix's output there.
        generator: of the start.
    """
    layers = range(len(factors[0]))
    every = [[torch.cat([row[layer][part] for row in factors]).float() for layer in layers] for part in (0, 1)]
    width = sum(parts[0].shape[1] for parts in every)
    found: dict[str, torch.Tensor] = {}
    for name, parts in zip(("keys", "gradients"), every, strict=True):
        found[f"{name}_mean"] = torch.stack([part.mean(0) for part in parts])
        found[f"{name}_deviation"] = torch.stack([part.std() + TINY * part.abs().max() for part in parts])[:, None]
    found["down"] = torch.randn(hidden, width, generator=generator) / width**0.5
    found["up"] = torch.zeros(width, hidden)
    found["scale"], found["offset"] = torch.ones(len(layers), hidden), torch.zeros(len(layers), hidden)
    found["log_rate"] = torch.full((len(layers),), float(np.log(rate)))
    return found


def trained_parts(editor: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors of an editor that are trained."""
    return [editor[name] for name in ("down", "up", "scale", "offset", "log_rate")]


def edited_matrices(
    editor: Mapping[str, torch.Tensor], rows: Iterable[Sequence[Factors]], layers: Sequence[DownProjection]
) -> list[torch.Tensor]:
    """Return per layer the change [dimension, neuron]: -rate sum over rows, positions of gradient~ key~', in float32.

    (key~, gradient~) = x + up relu(scale (down x) + offset) for the normalised pair x. Differentiable in the editor.
    """
    found = [torch.zeros(layer.matrix.shape) for layer in layers]
    for row in rows:
        for at in range(len(layers)):
            keys, gradients = row[at].keys.float(), row[at].gradients.float()
            parts = [(keys - editor["keys_mean"][at]) / editor["keys_deviation"][at],
                     gradients / editor["gradients_deviation"][at]]  # fmt: skip
            both = torch.cat(parts, 1)
            inner = torch.relu(editor["scale"][at] * (both @ editor["down"].T) + editor["offset"][at])
            both = both + inner @ editor["up"].T
            new_keys, new_gradients = both.split([keys.shape[1], gradients.shape[1]], 1)
            # Positions whose gradient is nothing ask for nothing, whatever the network makes of them.
            asks = gradients.norm(dim=1, keepdim=True)
            shares = asks / asks.max().clamp(min=1e-30)
            found[at] = found[at] - editor["log_rate"][at].exp() * (new_gradients * shares).T @ new_keys
    return found


def write(subject: Subject, editor: Learned, facts: Any) -> WeightEdit:
    """Return the weight edit that a trained editor makes of facts; all of them are written at once.

    Args:
        subject: the model that the editor was trained for.
        editor: what mend returned.
        facts: `Fact(prompt, subject, target)` or a list of them.

    Raises:
        EditError: something else than such an editor, or one of other weights.
    """
    need_editor(subject, editor, APPLY, "mend")
    layers = down_projections(subject, [int(layer) for layer in editor.settings["layers"]])
    rows = rows_of(subject, as_facts(facts))
    factors = edit_factors(subject, rows, layers)
    tensors = {name: torch.as_tensor(np.asarray(value)) for name, value in editor.tensors.items()}
    with torch.no_grad():
        changes = edited_matrices(tensors, factors, layers)
    return weight_edit(subject, layers, changes, f"MEND: {len(rows)} facts")
