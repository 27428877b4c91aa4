"""Knowledge-neuron edit: take the old answer out of the vectors that a few neurons write, and put the new one in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.facts import Fact
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import require_decoder
from pellucid.engine.knowledge_neurons import neuron_attributions, strongest_neurons
from pellucid.engine.targets import resolve
from pellucid.methods.editing._shared import ask, finished
from pellucid.models.subject import Subject

Change = dict[int, dict[int, torch.Tensor]]


@method(
    rows=("EDT-4",),
    paper="arXiv:2104.08696",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
    cost="prompts*(layers*steps*(F+B)+6*F)+300*F",
)
def knowledge_neuron_edit(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *,
    neurons: Sequence[tuple[int, int]] | None = None, count: Positive = 5, remove: NonNegativeFloat = 1.0,
    add: NonNegativeFloat = 8.0, steps: Positive = 8, neutral: Sequence[Any] | None = None, seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Change what a few neurons write: v_i <- v_i - remove t + add t', with the old and the new answer's word vectors.

    v_i is the column of the feed-forward matrix that neuron i multiplies; t (old) and t' (new) are rows of the
    unembedding (what reads the stream), scaled to the length of v_i, since their own length says nothing of the
    stream's. The first token of each answer counts. An approximation: nothing makes the target likely by construction
    (Dai et al. 2022, arXiv:2104.08696).

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them; without `true`, the model's own answer
            is the old one.
        neurons: (layer, neuron) pairs that hold the fact; None means the `count` of the largest integrated gradients of
            the old answer's probability along neurons' activations at the prompt's last token.
        count: neurons for each fact, where they are searched.
        remove: weight of the old answer (1 in the paper).
        add: weight of the new answer (8 in the paper).
        steps: of the integrated gradients.
        neutral: texts on which side effects are measured; None means text that the model writes itself.
        seed: of own texts.

    Returns:
        WeightEdit with factors: a column for each changed neuron.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError: a fact whose subject is not in its prompt, or neurons that the model lacks.
    """
    require_decoder(subject)
    every = list(range(subject.layers))
    asked = ask(subject, facts, every, "last", 1, (), seed)
    words = subject.model.get_output_embeddings().weight.detach()
    changes: Change = {}
    named: dict[str, float] = {}
    for fact, one in zip(asked.facts, asked.wordings, strict=True):
        prompt = one.rows[0].ids[: one.rows[0].prompt]
        old = _old(subject, fact)
        found = neurons
        if found is None:
            attributions = neuron_attributions(subject, prompt, old, steps)
            found = strongest_neurons(attributions, count)
            named |= {f"{fact.text} layer {at} neuron {i}": float(attributions[at][i]) for at, i in found}
        directions = [words[token].double() / words[token].double().norm() for token in (old, one.rows[0].target[0])]
        for layer, neuron in found:
            _check(layer, neuron, [at.neurons for at in asked.layers])
            length = asked.layers[layer].value_of(neuron).norm()
            new = length * (add * directions[1] - remove * directions[0])
            own = changes.setdefault(layer, {})
            own[neuron] = own.get(neuron, torch.zeros_like(new)) + new
    edit = WeightEdit(factors=_factors(subject, changes), weights_hash=subject.weights_hash())
    total = sum(len(own) for own in changes.values())
    account = Evidence("neurons", f"{total} neurons were changed, in layers {sorted(changes)}.", named)
    return finished(subject, "Knowledge neurons", asked, edit.with_evidence(account), neutral, seed)


def _old(subject: Subject, fact: Fact) -> int:
    """Return the first token of the answer so far."""
    tokens = subject.encode(fact.text)
    answer = Fact(fact.prompt, fact.subject, fact.true).continuation if fact.true.strip() else None
    return resolve(subject, tokens, answer).parts[0].ids[0]


def _check(layer: int, neuron: int, sizes: Sequence[int]) -> None:
    if not 0 <= layer < len(sizes) or not 0 <= neuron < sizes[layer]:
        raise InputError(
            f"The neuron ({layer}, {neuron}) was asked for, but the model has layers 0 to {len(sizes) - 1} of "
            f"{sizes[0]} neurons; give (layer, neuron) pairs."
        )


def _factors(subject: Subject, changes: Change) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the changes as factors: the new parts of the columns, and which columns they are."""
    found = {}
    for at in down_projections(subject, sorted(changes)):
        own = changes[at.layer]
        picked = torch.zeros(len(own), at.neurons, dtype=torch.float64, device=at.weight.device)
        picked[range(len(own)), list(own)] = 1.0
        found[at.name] = at.factors(torch.stack(list(own.values()), 1), picked)
    return found
