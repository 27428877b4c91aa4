"""Neuron roles: planted neurons come first, and shares of variance equal those written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError
from pellucid.methods.reading.neuron_roles import neuron_roles
from tests import plain


def rows(found: Any, role: str) -> dict[tuple[int, int], float]:
    return {row[1:3]: row[3] for row in found.rows if row[0] == role}


def test_planted_entropy_and_frequency_neurons_come_first() -> None:
    """One neuron writes into the null space of the unembedding alone, another along the logits of frequent tokens."""
    model = plain.tiny("gpt2")
    texts = [[11, 42, 7, 42, 11, 42], [42, 42, 11, 9]]
    counts = torch.bincount(torch.tensor([*texts[0], *texts[1]]), minlength=model.config.vocab_size).double() + 1
    unembedding = (model.lm_head.weight * model.transformer.ln_f.weight).detach()
    unembedding = unembedding - unembedding.mean(1, keepdim=True)
    direction = torch.linalg.svd(unembedding)[2][-1]
    aim = torch.linalg.lstsq(unembedding - unembedding.mean(0), (counts.log() - counts.log().mean())[:, None]).solution
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight[3] = 2.5 * direction
        model.transformer.h[0].mlp.c_proj.weight[5] = 0.4 * aim[:, 0]
        norms = torch.cat([block.mlp.c_proj.weight.norm(dim=1) for block in model.transformer.h])
    found = neuron_roles(pellucid.load(model), prompts=texts, null_share=0.0, most=2)
    entropy, frequency = rows(found, "entropy"), rows(found, "frequency")
    assert next(iter(entropy)) == (1, 3)
    assert entropy[1, 3] == pytest.approx(2.5 / float(norms.detach().mean()), abs=1e-9)
    assert next(iter(frequency)) == (0, 5)
    said = model.transformer.h[0].mlp.c_proj.weight[5].detach() @ (unembedding - unembedding.mean(0)).T
    log_counts = counts.log() - counts.log().mean()
    assert frequency[0, 5] == pytest.approx(float(torch.cosine_similarity(said, log_counts, dim=0)), abs=1e-7)


def test_position_explains_a_share_of_variance_by_hand() -> None:
    model = plain.tiny("gpt2")
    subject = pellucid.load(model)
    found = neuron_roles(subject, samples=3, length=4, most=10_000, seed=2)
    rng, seen = np.random.default_rng(2), list[torch.Tensor]()
    handle = model.transformer.h[1].mlp.c_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    special = {subject.pad_id, *(getattr(subject.tokenizer, "all_special_ids", None) or ())}
    words = np.array([i for i in range(subject.vocabulary) if i not in special])
    with torch.no_grad():
        for _ in range(3):
            model(input_ids=torch.tensor([[int(i) for i in rng.choice(words, 4)]]))
    handle.remove()
    values = torch.stack(seen)[:, :, 7].numpy()
    overall = values.mean()
    between = sum((values[:, p].mean() - overall) ** 2 for p in range(4)) / 4
    assert rows(found, "position")[1, 7] == pytest.approx(between / ((values - overall) ** 2).mean(), abs=1e-6)


def test_the_entropy_neurons_of_tiny_lm_change_its_entropy_more_than_random_ones() -> None:
    found = neuron_roles(pellucid.load("zoo:tiny-lm"), samples=8)
    checks = {check.name: check for check in found.evidence}
    assert checks["role: entropy"].ok
    assert checks["role: position"].ok
    scores = [row[3] for row in found.rows if row[0] == "entropy"]
    assert scores == sorted(scores, reverse=True)
    assert all(row[3] > 3 * row[4] for row in found.rows if row[0] == "entropy")


def test_an_encoder_is_refused() -> None:
    with pytest.raises(CapabilityError, match="no causal language model"):
        neuron_roles(pellucid.load(plain.tiny("bert-classifier")))
