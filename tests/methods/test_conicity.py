"""Conicity by its definition on the native hidden states, and vectors whose conicity is known."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.core.errors import SiteError
from pellucid.methods.attention.conicity import conicity
from tests import plain


@pytest.mark.parametrize("name", ["gpt2", "bert-classifier"])
def test_equals_the_definition_on_native_hidden_states(name: str) -> None:
    model = plain.tiny(name)
    with torch.no_grad():
        states = model(input_ids=torch.tensor([plain.IDS]), output_hidden_states=True).hidden_states
    expected = []
    for layer in range(2):
        vectors = states[layer][0].numpy()
        mean = vectors.sum(0) / 6
        expected.append(sum(v @ mean / np.linalg.norm(v) / np.linalg.norm(mean) for v in vectors) / 6)
    found = conicity(pellucid.load(model), plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


def test_equal_vectors_and_orthogonal_ones() -> None:
    subject = pellucid.load(plain.tiny())
    same = subject.with_(Edit("blocks.1.resid_pre", lambda value, context: value[:1].expand_as(value)))
    assert conicity(same, plain.IDS, target=1).scores[1] == pytest.approx(1)
    apart = subject.with_(Edit("blocks.1.resid_pre", lambda value, context: 3 * torch.eye(*value.shape).to(value)))
    assert conicity(apart, plain.IDS, target=1).scores[1] == pytest.approx(6**-0.5)


def test_heads_have_their_own() -> None:
    subject = pellucid.load(plain.tiny())
    same = subject.with_(Edit("blocks.0.attn.v", lambda v, c: v[:1].expand_as(v), where={"head": 2}))
    found = conicity(same, plain.IDS, target=1, site="attn.v")
    assert found.axes == ("layer", "head")
    assert found.values[0, 2] == pytest.approx(1)
    assert (found.values[0, [0, 1, 3]] < 0.99).all()
    with pytest.raises(SiteError, match="has the axes"):
        conicity(subject, plain.IDS, target=1, site="attn.pattern")
