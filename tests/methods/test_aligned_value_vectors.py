"""Aligned value vectors: read from the weights by hand, and found where they were planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.methods.steering.aligned_value_vectors import aligned_value_vectors
from pellucid.methods.steering.mean_difference import mean_difference
from tests import plain

PROMPTS = [plain.IDS, [3, 9, 81]]


def planted(vector: torch.Tensor) -> Any:
    """Return GPT-2 with one neuron of its second layer that writes along a vector."""
    model = plain.tiny("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight[5] = 3 * vector
    return model


def test_finds_the_planted_neuron_and_reads_its_activation() -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0)).double()
    subject = pellucid.load(planted(vector))
    tuned = planted(vector)
    with torch.no_grad():
        tuned.transformer.h[1].mlp.c_fc.bias[5] -= 50  # bypassed: the value stays, the key no longer fires
    found = aligned_value_vectors(subject, vector.numpy(), prompts=PROMPTS, tuned=pellucid.load(tuned), count=3)
    first = dict(zip(found.columns, found.rows[0], strict=True))
    assert (first["layer"], first["neuron"]) == (1, 5)
    assert first["cosine"] == pytest.approx(1.0)
    assert first["cosine with tuned"] == pytest.approx(1.0)
    sums, model = [], subject.model

    def see(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        sums.extend(args[0].reshape(-1, args[0].shape[-1])[:, 5].tolist())

    handle = model.transformer.h[1].mlp.c_proj.register_forward_pre_hook(see)
    for ids in PROMPTS:
        plain.logits(model, ids)
    handle.remove()
    assert first["activation"] == pytest.approx(np.mean(sums), abs=1e-9)
    assert abs(first["activation in tuned"]) < 1e-6
    second = dict(zip(found.columns, found.rows[1], strict=True))
    weights = model.transformer.h[second["layer"]].mlp.c_proj.weight[second["neuron"]].detach()
    assert second["cosine"] == pytest.approx(float(torch.cosine_similarity(weights, vector, dim=0)))
    norm = model.transformer.ln_f
    raised = model.lm_head.weight.detach() @ ((3 * vector - 3 * vector.mean()) * norm.weight.detach())
    names = [subject.tokenizer.decode([int(i)]) if subject.tokenizer else str(int(i)) for i in raised.topk(1).indices]
    assert len(first["tokens"]) >= len(names[0].strip())


def test_takes_a_learned_direction_and_refuses_others() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = mean_difference(subject, [[1, 2, 3], [4, 5]], [[7, 8, 9], [10, 11]])
    found = aligned_value_vectors(subject, learned, layer=0, count=1)
    vector = torch.as_tensor(learned.tensors["directions"][0])[None]
    values = [block.mlp.c_proj.weight.detach() for block in subject.model.transformer.h]
    best = max(float(torch.cosine_similarity(value, vector, dim=1).max()) for value in values)
    assert found.rows[0][2] == pytest.approx(best)
    with pytest.raises(EditError, match="A vector from another model"):
        aligned_value_vectors(subject, np.ones(7))
    with pytest.raises(InputError, match="learned for"):
        aligned_value_vectors(subject, learned, layer=9)
