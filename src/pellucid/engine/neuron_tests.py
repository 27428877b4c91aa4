"""Tests of what neurons are for: the output without them, against the output without as many random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats

from pellucid.core.results import Evidence
from pellucid.engine.coalitions import standard_error
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Neuron = tuple[int, int]  # layer, number


@torch.no_grad()
def log_probs_of(
    subject: Subject, texts: Sequence[tuple[int, ...]], edits: Sequence[tuple[Edit, ...]]
) -> list[torch.Tensor]:
    """Return the log probabilities of the next token at every position: [position, vocabulary] for each text."""

    def run(batch: list[int]) -> list[torch.Tensor]:
        logits = forward(subject, [Row(texts[i], edits=edits[i]) for i in batch]).logits
        return [logits[n, : len(texts[i])].double().log_softmax(-1).cpu() for n, i in enumerate(batch)]

    return in_batches(range(len(texts)), [len(ids) for ids in texts], run)


def output_measures(log_probs: torch.Tensor, frequency: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return per position the entropy, the log probabilities, and the divergence from the frequencies."""
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    known = frequency.log_softmax(-1)
    return {"entropy": entropy, "position": log_probs, "frequency": (log_probs.exp() * (log_probs - known)).sum(-1)}


@dataclass(frozen=True, eq=False)
class NeuronTest:
    """Ablates neurons on texts and compares what the outputs say with what they said before."""

    subject: Subject
    texts: Sequence[tuple[int, ...]]
    plain: list[dict[str, torch.Tensor]]
    means: list[torch.Tensor]
    frequency: torch.Tensor

    def __call__(self, role: str, neurons: list[Neuron], rng: np.random.Generator) -> Evidence:
        """Return the evidence for the neurons of a role against as many random ones of the same layers."""
        own, other = self.change(role, [neurons] * len(self.texts)), self.change(role, self.random(neurons, rng))
        more = own - other
        half = float("nan")
        if len(more) > 1:
            half = float(stats.t.ppf(0.975, len(more) - 1) * standard_error(more[:, None])[0])
        what = {"entropy": "entropy", "position": "log p of the next token", "frequency": "divergence"}[role]
        return Evidence(
            f"role: {role}",
            f"Without its {len(neurons)} neurons the {what} changes by {own.mean():.3g} nats in size, without as many "
            f"random ones of the same layers by {other.mean():.3g}; the difference is {more.mean():.3g}, 95 % interval "
            f"+- {half:.2g} over {len(more)} texts.",
            {"effect": float(own.mean()), "random": float(other.mean()), "difference": float(more.mean()),
             "half_width": half, "texts": float(len(more))},
            ok=bool(more.mean() - half > 0) if len(more) > 1 else None,
        )  # fmt: skip

    def change(self, role: str, sets: Sequence[Sequence[Neuron]]) -> np.ndarray:
        """Return by how much, in size, the output of each text changes without its set of neurons."""
        edits = [tuple(self._without(layer, neuron) for layer, neuron in one) for one in sets]
        changed = []
        for ids, log_probs, before in zip(
            self.texts, log_probs_of(self.subject, self.texts, edits), self.plain, strict=True
        ):
            gap = (output_measures(log_probs, self.frequency)[role] - before[role]).abs()
            if role == "position" and len(ids) > 1:
                gap = gap[:-1].gather(-1, torch.tensor(ids[1:])[:, None])
            changed.append(float(gap.mean()))
        return np.array(changed)

    def random(self, neurons: Sequence[Neuron], rng: np.random.Generator) -> list[list[Neuron]]:
        """Return for each text as many random neurons of the same layers, others than these where there are any."""
        found = []
        for _ in self.texts:
            here: list[Neuron] = []
            for layer, _ in neurons:
                free = [i for i in range(len(self.means[layer])) if (layer, i) not in (*neurons, *here)]
                if free:
                    here.append((layer, int(rng.choice(free))))
            found.append(here)
        return found

    def _without(self, layer: int, neuron: int) -> Edit:
        mean = self.means[layer][[neuron]]
        return Edit(f"blocks.{layer}.mlp.post", "set", mean, {"neuron": [neuron]})
