"""Orthogonal weights equal the ablation of every write, and what cannot be exact is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, EditError
from pellucid.engine.orthogonal import ablated_writes
from pellucid.methods.steering.mean_difference import mean_difference
from pellucid.methods.steering.orthogonal_weights import orthogonal_weights
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain
from tests.tiny import TINY


def untied(name: str) -> Any:
    """Return a tiny model whose unembedding has weights of its own."""
    model = plain.tiny(name)
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
        model.get_output_embeddings().weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    return model


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "neox-parallel"])
def test_equals_the_ablation_of_every_write(name: str) -> None:
    subject = pellucid.load(untied(name))
    vector = torch.randn(subject.model.config.hidden_size, generator=torch.Generator().manual_seed(0)).double()
    found = orthogonal_weights(subject, vector.numpy())
    baked = subject.with_(found)
    rows = [Row(tuple(plain.IDS)), Row((3, 9))]
    ablated = forward(subject.with_(*ablated_writes(subject, vector)), rows).logits
    changed = forward(baked, rows).logits
    for i, row in enumerate(rows):
        np.testing.assert_allclose(changed[i, : len(row.ids)], ablated[i, : len(row.ids)], atol=1e-9)
    assert (ablated - forward(subject, rows).logits).abs().max() > 1e-3
    assert found.evidence[0].values["gap"] < 1e-9
    last = f"blocks.{subject.layers - 1}.resid_post"
    stream = forward(baked, rows[:1], capture=[last]).captured[last]
    assert (stream @ vector / vector.norm()).abs().max() < 1e-9
    assert all(left.shape[1] == 1 for left, _ in found.factors.values())


def test_takes_a_learned_direction_and_leaves_tied_embeddings_when_told() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    learned = mean_difference(subject, [[1, 2, 3], [4, 5]], [[7, 8, 9], [10, 11]])
    with pytest.raises(EditError, match="also the unembedding"):
        orthogonal_weights(subject, learned)
    found = orthogonal_weights(subject, learned, layer=0, embedding=False)
    vector = torch.as_tensor(learned.tensors["directions"][0])
    ablated = forward(subject.with_(*ablated_writes(subject, vector, embedding=False)), [Row((1, 2))]).logits
    np.testing.assert_allclose(forward(subject.with_(found), [Row((1, 2))]).logits, ablated, atol=1e-9)
    assert not any("wte" in name for name in found.names)


def test_models_without_exact_weights_and_foreign_vectors_are_refused() -> None:
    bert = pellucid.load(TINY["bert"]())
    with pytest.raises(CapabilityError, match="norms in front"):
        orthogonal_weights(bert, np.ones(32))
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(EditError, match="A vector from another model"):
        orthogonal_weights(subject, np.ones(7), embedding=False)
    learned = mean_difference(subject, [[1, 2, 3], [4, 5]], [[7, 8, 9], [10, 11]])
    with pytest.raises(EditError, match="A vector from another model"):
        orthogonal_weights(pellucid.load(plain.tiny("llama")), learned)
