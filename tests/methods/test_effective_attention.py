"""Effective attention: the null space by SVD as in the paper, the same outputs, and no weight for later tokens."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.capture import capture
from pellucid.methods.attention.effective_attention import effective_attention
from tests import plain

LONG = [(7 * i + 11) % 97 for i in range(20)]  # more tokens than a head has dimensions


@pytest.mark.parametrize(("name", "causal"), [("bert-classifier", False), ("llama", True)])
def test_equals_the_projection_off_the_left_null_space(name: str, causal: bool) -> None:
    model = plain.tiny(name)
    subject = pellucid.load(model)
    found = effective_attention(subject, LONG, target=1)
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.v"]
    pattern, value = (capture(subject, LONG, sites)[site] for site in sites)
    value = value.repeat_interleave(pattern.shape[0] // value.shape[1], 1)
    head = 2
    for query in (0, 12, 19):
        keys = query + 1 if causal else 20
        transformed = value[:keys, head].numpy()
        left, sizes, _ = np.linalg.svd(transformed, full_matrices=True)
        null = left[:, int((sizes > 1e-10).sum()) :]
        row = pattern[head, query, :keys].numpy()
        np.testing.assert_allclose(found.values[1, head, query, :keys], row - null @ null.T @ row, atol=1e-9)
        np.testing.assert_allclose(found.values[1, head, query, keys:], 0, atol=1e-12)
    assert found.values.min() < -1e-4  # something was taken, and weights became negative
    [check] = found.evidence
    assert check.values["residual"] < 1e-9
    assert check.values["cancelled"] > 0.05


def test_adding_from_the_null_space_changes_no_effective_weight() -> None:
    """Two attention maps that differ by what the values cancel are one and the same to the model."""
    subject = pellucid.load(plain.tiny("bert-classifier"))
    sites = ["blocks.0.attn.pattern", "blocks.0.attn.v"]
    captured = capture(subject, LONG, sites)
    left, sizes, _ = torch.linalg.svd(captured[sites[1]].transpose(0, 1), full_matrices=True)
    null = left[:, :, sizes.shape[1] :].sum(-1)
    other = captured[sites[0]] + 1e-4 * null[:, None]
    assert float((other - captured[sites[0]]).abs().max()) > 1e-5
    edited = subject.with_(pellucid.Edit(sites[0], "set", other))
    one, two = (effective_attention(s, LONG, target=1, layers=[0]).values for s in (subject, edited))
    np.testing.assert_allclose(one, two, atol=1e-9)


def test_short_prompts_lose_nothing() -> None:
    subject = pellucid.load(plain.tiny())
    found = effective_attention(subject, plain.IDS, target=1, layers=[-1])
    own = capture(subject, plain.IDS, ["blocks.1.attn.pattern"])["blocks.1.attn.pattern"]
    np.testing.assert_allclose(found.values[0], own.numpy(), atol=1e-9)
    assert found.labels["layer"] == ("1",)
