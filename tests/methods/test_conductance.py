"""Conductance: completeness in every layer, the definition by brute force, a linear layer, and Captum."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.methods.attribution.conductance import conductance
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from tests import plain


@pytest.mark.parametrize("name", ["gpt2", "bert-classifier"])
def test_every_layer_of_the_stream_adds_up(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    found = conductance(subject, plain.IDS, target=1, site="resid_pre", baseline=3, steps=40)
    change = integrated_gradients(subject, plain.IDS, target=1, baseline=3).evidence[0].values["difference"]
    np.testing.assert_allclose(found.values.sum(1), change, rtol=2e-3)
    assert found.evidence[0].ok
    assert found.evidence[0].values["difference"] == pytest.approx(change, abs=1e-9)


def test_at_the_input_it_is_integrated_gradients() -> None:
    """Before the first block of a Llama the stream is the embedding, so dh/de is the identity."""
    subject = pellucid.load(plain.tiny("llama"))
    inside = conductance(subject, plain.IDS, target=plain.TARGET, site="resid_pre", baseline=3, steps=20)
    outside = integrated_gradients(
        subject, plain.IDS, target=plain.TARGET, baseline=3, steps=20, quadrature="riemann_middle"
    )
    np.testing.assert_allclose(inside.values[0], outside.scores, atol=1e-6)


def test_equals_the_definition_neuron_by_neuron() -> None:
    """df/dh by scaling one neuron with an edit, dh along the path by running the model: no gradient at all."""
    model = plain.tiny()
    subject = pellucid.load(model)
    end = plain.embeddings(model, plain.IDS)
    kept: list[torch.Tensor] = []
    module = model.transformer.h[1].mlp.c_proj
    hook = module.register_forward_pre_hook(lambda m, args: kept.append(args[0][0].detach()))
    steps, neuron, total = 12, 5, 0.0

    def logit(vectors: torch.Tensor, shift: torch.Tensor) -> float:
        moved = module.register_forward_pre_hook(lambda m, args: (args[0] + shift,))
        with torch.no_grad():
            value = float(plain.from_embeddings(model, vectors)[plain.TARGET])
        moved.remove()
        return value

    for step in range(steps):
        low, middle, high = ((step + t) / steps * end for t in (0.0, 0.5, 1.0))
        values = []
        for vectors in (low, high):
            kept.clear()
            logit(vectors, torch.zeros(1, 6, 128, dtype=torch.float64))
            values.append(kept[0])
        for position in range(6):
            shift = torch.zeros(1, 6, 128, dtype=torch.float64)
            shift[0, position, neuron] = 1e-5
            slope = (logit(middle, shift) - logit(middle, -shift)) / 2e-5
            total += slope * float(values[1][position, neuron] - values[0][position, neuron])
    hook.remove()
    found = conductance(subject, plain.IDS, target=plain.TARGET, steps=steps)
    assert found.axes == ("layer", "neuron")
    assert found.values[1, neuron] == pytest.approx(total, abs=1e-9)
    assert abs(total) > 1e-6


def test_a_silent_head_conducts_nothing() -> None:
    subject = pellucid.load(plain.tiny())
    silent = subject.with_(Edit("blocks.1.attn.z", "zero", where={"head": 2}))
    found = conductance(silent, plain.IDS, target=plain.TARGET, site="attn.z", steps=6)
    assert found.axes == ("layer", "head")
    assert found.values[1, 2] == 0
    assert (np.abs(found.values[1, [0, 1, 3]]) > 0).all()


def test_each_target_is_a_column() -> None:
    subject = pellucid.load(plain.tiny())
    target = Target.continuation([17, 33], each=True, measure="logit")
    matrix = conductance(subject, plain.IDS, target=target, steps=4)
    assert matrix.axes == ("layer", "neuron", "target")
    alone = conductance(subject, plain.IDS, target=17, steps=4)
    np.testing.assert_allclose(matrix.values[..., 0], alone.values, atol=1e-12)


@pytest.mark.peers
def test_agrees_with_captum() -> None:
    attr = pytest.importorskip("captum.attr")
    model = plain.tiny()
    layer = model.transformer.h[1].mlp.act
    end = plain.embeddings(model, plain.IDS)
    peer = attr.LayerConductance(lambda v: model(inputs_embeds=v).logits[:, -1], layer)
    theirs = peer.attribute(end[None].requires_grad_(), 0.0, target=plain.TARGET, n_steps=800, method="riemann_middle")
    ours = conductance(pellucid.load(model), plain.IDS, target=plain.TARGET, steps=60)
    expected = theirs[0].sum(0).detach().numpy()
    np.testing.assert_allclose(ours.values[1], expected, atol=2e-3 * np.abs(expected).max())
