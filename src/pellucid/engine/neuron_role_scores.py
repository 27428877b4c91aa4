"""How much neurons look like entropy, position and token-frequency neurons, from weights and from activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.engine.head_weights import neuron_weights, unembedding
from pellucid.models.subject import Subject


def scores_by_weights(subject: Subject, null_share: float, frequency: torch.Tensor) -> dict[str, list[np.ndarray]]:
    """Return per layer and neuron how much lies in the null space of the unembedding, and along the frequencies."""
    outputs = unembedding(subject)
    values, vectors = torch.linalg.eigh(outputs.double().T @ outputs.double())  # ascending
    null = vectors[:, : max(1, round(null_share * len(values)))]
    written = [neuron_weights(subject, layer).to(outputs) for layer in range(subject.layers)]
    size = float(torch.cat([one.norm(dim=1) for one in written]).mean())
    aim = (frequency - frequency.mean()).to(outputs)
    centred = outputs - outputs.mean(0)
    lengths = [((one @ (centred.T @ centred)) * one).sum(1).clamp(min=1e-30).sqrt() for one in written]
    along = [one @ (centred.T @ aim) / aim.norm().clamp(min=1e-30) for one in written]
    return {
        "entropy": [((one.double() @ null).norm(dim=1) / size).cpu().numpy() for one in written],
        "frequency": [(a / b).abs().cpu().numpy() for a, b in zip(along, lengths, strict=True)],
    }


def scores_by_position(values: Sequence[list[torch.Tensor]], first: int) -> list[np.ndarray]:
    """Return per layer and neuron the share of variance that the position explains, behind the first token."""
    found = []
    for layer in range(len(values[0])):
        stacked = torch.stack([one[layer][first:] for one in values]).double()
        total = stacked.var((0, 1), correction=0)
        explained = stacked.mean(0).var(0, correction=0)
        found.append(torch.where(total > 1e-12, explained / total.clamp(min=1e-12), 0.0).numpy())
    return found
