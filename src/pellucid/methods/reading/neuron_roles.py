"""Neuron roles: entropy, position and token-frequency neurons, with the check that the output needs them for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.capture import capture
from pellucid.engine.neuron_role_scores import scores_by_position, scores_by_weights
from pellucid.engine.neuron_tests import NeuronTest, log_probs_of, output_measures
from pellucid.engine.role_inputs import beginning, causal, ordinary
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
    plain = [output_measures(log_probs, frequency) for log_probs in log_probs_of(subject, texts, [()] * len(texts))]
    rows: list[tuple[str | int | float, ...]] = []
    checks: list[Evidence] = []
    for role in ("entropy", "position", "frequency"):
        found = [(layer, i, float(v)) for layer, one in enumerate(scores[role]) for i, v in enumerate(one)]
        best = sorted(found, key=lambda entry: -entry[2])[:most]
        average = float(np.mean([value for _, _, value in found]))
        rows += [(role, *entry, average) for entry in best]
        test = NeuronTest(subject, texts, plain, means, frequency)
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
    return torch.cat([one.exp() for one in log_probs_of(subject, drawn, [()] * len(drawn))]).mean(0).log()
