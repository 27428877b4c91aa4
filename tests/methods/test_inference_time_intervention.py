"""ITI: probes as scikit-learn's, one by one; the shift by a hook on the native output projection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import pellucid
from pellucid.core.results import Learned
from pellucid.engine.directions import activations, held_out
from pellucid.engine.live_edits import live
from pellucid.engine.steering import Steering
from pellucid.methods.steering.inference_time_intervention import inference_time_intervention
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from tests import plain

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(16)], [[i + 40, 11 + i, 7] for i in range(16)]


@pytest.fixture(scope="module")
def subject() -> pellucid.Subject:
    """Load a tiny random decoder once."""
    return pellucid.load(plain.tiny("llama"))


@pytest.fixture(scope="module")
def learned(subject: pellucid.Subject) -> Learned:
    """Learn a shift of its three best heads."""
    return inference_time_intervention(subject, POSITIVE, NEGATIVE, heads=3)


def test_every_probe_is_scikit_learns(subject: pellucid.Subject, learned: Learned) -> None:
    values = activations(subject, [*POSITIVE, *NEGATIVE], "attn.z").values
    labels = np.repeat([1, 0], 16)
    held = held_out(labels, 0.25, 0)
    layers, _, heads, _ = values.shape
    for layer in range(layers):
        for head in range(heads):
            x = values[layer, :, head]
            peer = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x[~held], labels[~held])
            np.testing.assert_allclose(learned.tensors["probes"][layer, head], peer.coef_[0], atol=1e-3)
            right = peer.score(x[held], labels[held])
            assert learned.tensors["accuracies"][layer, head] == pytest.approx(right, abs=0.13)
    best = learned.settings["heads"]
    taken = [learned.tensors["accuracies"][layer, head] for layer, head in best]
    assert len(best) == 3
    assert min(taken) >= np.sort(learned.tensors["accuracies"], axis=None)[-3]


def test_shifts_the_heads_before_the_output_projection(subject: pellucid.Subject, learned: Learned) -> None:
    steered = subject.with_(*Steering(learned, 5.0).edits(subject))
    model = plain.tiny("llama")
    width = learned.tensors["directions"].shape[-1]
    labels = np.repeat([1, 0], 16)
    kept = ~held_out(labels, 0.25, 0)
    values = activations(subject, [*POSITIVE, *NEGATIVE], "attn.z").values

    def shift(layer: int) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            z = args[0].clone()
            for at, head in learned.settings["heads"]:
                if at == layer:
                    x = values[layer, kept, head]
                    theta = x[labels[kept] == 1].mean(0) - x[labels[kept] == 0].mean(0)
                    theta = theta / np.linalg.norm(theta)
                    z[..., head * width : (head + 1) * width] += 5.0 * torch.as_tensor((x @ theta).std() * theta)
            return (z,)

        return hook

    for layer in range(2):
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(shift(layer))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([plain.IDS])).logits[0]
    np.testing.assert_allclose(forward(steered, [Row(tuple(plain.IDS))]).logits[0], wanted, atol=1e-9)
    with live(steered) as own, torch.no_grad():
        np.testing.assert_allclose(own(input_ids=torch.tensor([plain.IDS])).logits[0], wanted, atol=1e-9)
    none = subject.with_(*Steering(learned, 0.0).edits(subject))
    assert torch.equal(
        forward(none, [Row(tuple(plain.IDS))]).logits, forward(subject, [Row(tuple(plain.IDS))]).logits
    )  # fmt: skip


def test_other_heads_can_be_named(subject: pellucid.Subject, learned: Learned) -> None:
    edits = Steering(learned, heads=[(1, 0), (0, 1)]).edits(subject)
    assert [(edit.site, edit.where["head"]) for edit in edits] == [
        ("blocks.0.attn.z", [1]), ("blocks.1.attn.z", [0]),
    ]  # fmt: skip
