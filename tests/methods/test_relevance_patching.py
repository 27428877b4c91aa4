"""Relevance patching: exact where the rest of the model is linear, LRP coefficients elsewhere, pairs aligned."""

import numpy as np
import pytest

import pellucid
from pellucid import Pair
from pellucid.core.errors import InputError
from pellucid.engine.capture import capture
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.methods.relevance.lrp import lrp
from pellucid.methods.relevance.relevance_patching import relevance_patching
from pellucid.models.load import subject_of
from tests import plain

OTHER = [11, 42, 8, 23, 64, 9]


def test_equals_activation_patching_where_what_follows_is_linear() -> None:
    """Behind the last block there is only the unembedding, once the final norm is taken out."""
    import torch

    model = plain.tiny()
    model.transformer.ln_f = torch.nn.Identity()
    subject = subject_of(model, None, name="linear end", proved=False)
    estimate, exact = (
        m(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET, site="resid_post")
        for m in (relevance_patching, activation_patching)
    )
    np.testing.assert_allclose(estimate.values[-1], exact.values[-1], atol=1e-10)
    assert abs(exact.values[-1]).max() > 1e-3


def test_against_an_empty_corrupt_run_it_is_relevance() -> None:
    """c * x summed over positions is the relevance that LRP counts at the same place: here before the first block."""
    subject = pellucid.load(plain.tiny("llama"))
    found = relevance_patching(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET)
    shares = lrp(subject, OTHER, target=plain.TARGET)
    values = [capture(subject, ids, ["blocks.0.resid_pre"])["blocks.0.resid_pre"] for ids in (plain.IDS, OTHER)]
    same = [p for p in range(6) if plain.IDS[p] == OTHER[p]]
    np.testing.assert_allclose(found.values[0][same], 0, atol=1e-12)
    zero = subject.with_(pellucid.Edit("blocks.0.resid_pre", "zero"))
    nothing = capture(zero, plain.IDS, ["blocks.0.resid_pre"])["blocks.0.resid_pre"]
    assert not nothing.any()
    from pellucid.engine.question import ask
    from pellucid.engine.relevance import relevance
    from pellucid.engine.rules import Rules

    sites = relevance(ask(subject, OTHER, target=plain.TARGET), Rules(), ["blocks.0.resid_pre"]).sites
    value, coefficient = sites["blocks.0.resid_pre"][0]
    np.testing.assert_allclose((value * coefficient[0]).sum(-1).numpy(), shares.scores, atol=1e-12)
    expected = ((values[0] - values[1]) * coefficient[0]).sum(-1)
    np.testing.assert_allclose(found.values[0], expected.numpy(), atol=1e-12)


def test_ranks_places_as_patching_does() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    estimate, exact = (
        m(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET, site="attn.z").values.ravel()
        for m in (relevance_patching, activation_patching)
    )
    assert np.corrcoef(estimate, exact)[0, 1] > 0.8


@pytest.mark.parametrize(("site", "axes"), [("attn.z", ("layer", "head", "position")),
                                            ("mlp.post", ("layer", "neuron", "position"))])  # fmt: skip
def test_heads_and_neurons_sum_to_their_places(site: str, axes: tuple[str, ...]) -> None:
    subject = pellucid.load(plain.tiny())
    found = relevance_patching(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET, site=site)
    assert found.axes == axes
    out = {"attn.z": "attn.out", "mlp.post": "mlp.out"}[site]
    whole = relevance_patching(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET, site=out)
    np.testing.assert_allclose(found.values.sum(1), whole.values, atol=1e-10)


def test_alignment_and_refusals() -> None:
    subject = pellucid.load(plain.tiny())
    plainly = relevance_patching(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET)
    same = Pair(plain.IDS, OTHER, tuple((p, p) for p in range(6)))
    np.testing.assert_allclose(relevance_patching(subject, same, target=plain.TARGET).values, plainly.values)
    with pytest.raises(InputError, match="equal length"):
        relevance_patching(subject, plain.IDS, corrupt=OTHER[:-1], target=plain.TARGET)
    with pytest.raises(InputError, match="no positions"):
        relevance_patching(subject, plain.IDS, corrupt=OTHER, target=plain.TARGET, site="attn.pattern")


def test_layers_of_different_size_are_stacked_with_zeros() -> None:
    """The fact model of the zoo has 6 neurons in one layer and 8 in the other."""
    subject = pellucid.load("zoo:truth/fact")
    prompts: list[list[int]] = [[1, 8, 7, 3, 4], [1, 8, 5, 3, 4]]
    found = relevance_patching(subject, prompts[0], corrupt=prompts[1], target=12, site="mlp.post")
    sizes = [capture(subject, prompts[0], [f"blocks.{i}.mlp.post"])[f"blocks.{i}.mlp.post"].shape[1] for i in (0, 1)]
    assert sizes[0] < sizes[1]
    assert found.values.shape == (2, sizes[1], 5)
    assert not found.values[0, sizes[0] :].any()
    assert found.values.any()
