"""Layer gradient x activation: finite differences at a site inside, the first layer's identity, and Captum."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.engine.capture import capture
from pellucid.methods.attribution.gradient_x_input import gradient_x_input
from pellucid.methods.attribution.layer_gradient_x_activation import layer_gradient_x_activation
from tests import plain


@pytest.mark.parametrize(
    ("name", "site", "axis"),
    [("gpt2", "mlp.post", "neuron"), ("llama", "attn.z", "head"), ("gpt2", "resid_mid", "position"),
     ("llama", "attn.pattern", "head")],
)  # fmt: skip
def test_equals_finite_differences_of_scaling_each_place(name: str, site: str, axis: str) -> None:
    """The derivative of f along h itself: scale the place by 1 + t and differentiate at t = 0."""
    subject = pellucid.load(plain.tiny(name))
    found = layer_gradient_x_activation(subject, plain.IDS, target=plain.TARGET, site=site)
    assert found.axes == ("layer", axis)
    step = 1e-3 if name == "llama" else 1e-5  # Llama normalises in float32 whatever its dtype
    for index in (0, 3):
        ends = []
        for t in (step, -step):
            edit = Edit(f"blocks.1.{site}", "scale", torch.tensor(1 + t, dtype=torch.float64), {axis: index})
            logits = capture(subject.with_(edit), plain.IDS, ["logits"])["logits"]
            ends.append(float(logits[-1, plain.TARGET]))
        tolerance = 5e-4 if name == "llama" else 1e-8
        assert found.values[1, index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=tolerance)


def test_at_the_first_layer_of_a_llama_it_is_gradient_x_input() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    inside = layer_gradient_x_activation(subject, plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(
        inside.values[0], gradient_x_input(subject, plain.IDS, target=plain.TARGET).scores, atol=1e-10
    )
    assert (inside.provenance.forwards, inside.provenance.backwards) == (1, 1)


def test_each_target_is_a_column() -> None:
    subject = pellucid.load(plain.tiny())
    matrix = layer_gradient_x_activation(
        subject, plain.IDS, target=Target.continuation([17, 33], each=True, measure="logit"), site="attn.z"
    )
    assert matrix.axes == ("layer", "head", "target")
    alone = layer_gradient_x_activation(subject, plain.IDS, target=17, site="attn.z")
    np.testing.assert_allclose(matrix.values[..., 0], alone.values, atol=1e-12)


@pytest.mark.peers
def test_agrees_with_captum() -> None:
    attr = pytest.importorskip("captum.attr")
    model = plain.tiny()
    layer = model.transformer.h[1].mlp.c_fc
    peer = attr.LayerGradientXActivation(lambda x: model(input_ids=x).logits[:, -1], layer)
    theirs = peer.attribute(torch.tensor([plain.IDS]), target=plain.TARGET)
    ours = layer_gradient_x_activation(pellucid.load(model), plain.IDS, target=plain.TARGET, site="mlp.up")
    np.testing.assert_allclose(ours.values[1], theirs[0].sum(0).detach().numpy(), atol=1e-10)
