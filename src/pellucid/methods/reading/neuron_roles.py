"""Neuron roles: entropy, position and token-frequency neurons, with the check that the output needs them for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.capture import capture
from pellucid.engine.coalitions import standard_error
from pellucid.engine.neuron_role_scores import scores_by_position, scores_by_weights
from pellucid.engine.planning import in_batches
from pellucid.engine.role_inputs import beginning, causal, ordinary
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

Neuron = tuple[int, int]


@method(
    rows=("MEC-5",),
    paper="arXiv:2401.12181",
    takes="models",
    produces="table",
    needs=("activations", "weights", "logits"),
    cost="4*samples*F",
)
def neuron_roles(
    subject: Subject, *, prompts: Sequence[Any] = (), length: Positive = 24, samples: Positive = 16,
    null_share: Fraction = 0.05, most: Positive = 5, seed: Count = 0,
) -> Table:  # fmt: skip
    """List the neurons that look most like entropy, position and token-frequency neurons, and test what they are for.

    "entropy": the norm of a neuron's output weights within the null space of the unembedding (the directions that move
    logits least), over the mean norm of all neurons: it acts through the final norm alone. "position": the share of the
    variance of its activation that the position explains, on random tokens. "frequency": |cos| between what it adds to
    the logits and the log frequency of tokens, both centred. The check ablates the neurons of a role together (mean
    over the inputs) and takes the mean change, in size, of: the output's entropy; log p of the next token; the
    divergence from the frequencies; all in nats. Exact for the inputs drawn (Gurnee et al. 2024, arXiv:2401.12181;
    Stolfo et al. 2024, arXiv:2406.16254).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompts: texts, chats or token ids that frequencies are counted in and checks run on; without any, random tokens
            and what the model itself predicts on average.
        length: of random texts.
        samples: random texts, and random sets of neurons to compare with.
        null_share: share of the directions of the stream that count as the null space; at least one.
        most: neurons of a role.
        seed: of texts and random neurons.

    Returns:
        Table with the columns role, layer, neuron, score and mean_score (over all neurons), largest first. For each
        role the evidence compares its neurons with as many random neurons of the same layers, with a 95 % interval over
        texts and random neurons; `ok` where it lies above 0.

    Raises:
        CapabilityError: a model that is no pre-norm causal language model.
        SiteError: a model whose experts are computed jointly.
    """
    causal(subject, "neuron_roles")
    rng = np.random.default_rng(seed)
    start, words = beginning(subject), ordinary(subject)
    count = min(length, (subject.max_length or length + len(start)) - len(start))
    drawn = [(*start, *map(int, rng.choice(words, count))) for _ in range(samples)]
    values = [_activations(subject, ids) for ids in drawn]
    texts = [subject.encode(prompt).ids for prompt in prompts] or drawn
    frequency = _frequency(subject, [subject.encode(p).ids for p in prompts], drawn)
    scores = scores_by_weights(subject, null_share, frequency) | {"position": scores_by_position(values, len(start))}
    means = [torch.cat([one[layer] for one in values]).mean(0) for layer in range(subject.layers)]
    plain = [_said(log_probs, frequency) for log_probs in _outputs(subject, texts, [()] * len(texts))]
    rows: list[tuple[str | int | float, ...]] = []
    checks: list[Evidence] = []
    for role in ("entropy", "position", "frequency"):
        found = [(layer, i, float(v)) for layer, one in enumerate(scores[role]) for i, v in enumerate(one)]
        best = sorted(found, key=lambda entry: -entry[2])[:most]
        average = float(np.mean([value for _, _, value in found]))
        rows += [(role, *entry, average) for entry in best]
        test = _Test(subject, texts, plain, means, frequency)
        checks.append(test(role, [(layer, neuron) for layer, neuron, _ in best], rng))
    columns = ("role", "layer", "neuron", "score", "mean_score")
    return Table(title="Neuron roles", columns=columns, rows=tuple(rows), evidence=tuple(checks))


def _activations(subject: Subject, ids: tuple[int, ...]) -> list[torch.Tensor]:
    """Return the activations of every layer's neurons: [position, neuron] each."""
    found = capture(subject, list(ids), ["blocks.*.mlp.post"])
    return [found[f"blocks.{layer}.mlp.post"].float().cpu() for layer in range(subject.layers)]


def _frequency(subject: Subject, given: list[tuple[int, ...]], drawn: list[tuple[int, ...]]) -> torch.Tensor:
    """Return log frequencies [vocabulary]: counts (and one) in the texts given, else the model's mean prediction."""
    if given:
        ids = torch.tensor([i for one in given for i in one])
        return torch.bincount(ids, minlength=subject.vocabulary).double().add(1).log()
    return torch.cat([one.exp() for one in _outputs(subject, drawn, [()] * len(drawn))]).mean(0).log()


@torch.no_grad()
def _outputs(
    subject: Subject, texts: Sequence[tuple[int, ...]], edits: Sequence[tuple[Edit, ...]]
) -> list[torch.Tensor]:
    """Return the log probabilities of the next token at every position: [position, vocabulary] for each text."""

    def run(batch: list[int]) -> list[torch.Tensor]:
        logits = forward(subject, [Row(texts[i], edits=edits[i]) for i in batch]).logits
        return [logits[n, : len(texts[i])].double().log_softmax(-1).cpu() for n, i in enumerate(batch)]

    return in_batches(range(len(texts)), [len(ids) for ids in texts], run)


def _said(log_probs: torch.Tensor, frequency: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return per position the entropy, the log probabilities, and the divergence from the frequencies."""
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    known = frequency.log_softmax(-1)
    return {"entropy": entropy, "position": log_probs, "frequency": (log_probs.exp() * (log_probs - known)).sum(-1)}


@dataclass(frozen=True, eq=False)
class _Test:
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
            self.texts, _outputs(self.subject, self.texts, edits), self.plain, strict=True
        ):
            gap = (_said(log_probs, self.frequency)[role] - before[role]).abs()
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
