"""Views of a subject never change it, and no score outlives the weights it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Subject
from tests import plain
from tests.state import changed, model_state
from tests.tiny import TINY

PROMPT = plain.IDS
METHODS = ("occlusion", "gradient_x_input", "integrated_gradients", "shapley_values")


def scores(subject: Subject, method: str = "occlusion", **options: Any) -> np.ndarray:
    found: np.ndarray = pellucid.run(method, subject, PROMPT, target=plain.TARGET, **options).scores
    return found


def test_edits_stack_and_the_original_stays() -> None:
    model = TINY["llama"]().double()
    subject = pellucid.load(model)
    before, plainly = model_state(model), scores(subject)
    zero = Edit("blocks.0.mlp.out", "zero")
    double = Edit("blocks.1.attn.out", "scale", 2.0)
    one, both = subject.with_(zero), subject.with_(zero).with_(double)
    assert (subject.edits, one.edits, both.edits) == ((), (zero,), (zero, double))
    np.testing.assert_array_equal(scores(both), scores(subject.with_(zero, double)))
    assert not np.allclose(scores(one), plainly)
    assert not np.allclose(scores(both), scores(one))
    np.testing.assert_array_equal(scores(subject), plainly)
    np.testing.assert_array_equal(scores(both.without_edits()), plainly)
    assert changed(before, model_state(model)) == []


def test_stacked_edits_equal_the_same_changes_of_the_weights() -> None:
    subject = pellucid.load(TINY["llama"]().double())
    edited = subject.with_(Edit("blocks.0.mlp.out", "zero")).with_(Edit("blocks.1.attn.out", "scale", 2.0))
    other = TINY["llama"]().double()
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.zero_()
        other.model.layers[1].self_attn.o_proj.weight.mul_(2)
    for method in METHODS:
        np.testing.assert_allclose(scores(edited, method), scores(pellucid.load(other), method), atol=1e-9)


def in_place(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)


def through_data(model: Any) -> None:
    model.model.embed_tokens.weight.data += 0.2  # no version counter sees this


def replaced(model: Any) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())


def trained(model: Any) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    model(input_ids=torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss.backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize("change", [in_place, through_data, replaced, trained])
def test_scores_follow_the_weights(change: Any) -> None:
    model = TINY["llama"]().double()
    subject = pellucid.load(model)
    options: dict[str, dict[str, Any]] = {
        "occlusion": {"replacement": "mean"},
        "integrated_gradients": {"baseline": "mean"},
    }
    before = {method: scores(subject, method, **options.get(method, {})) for method in METHODS}
    change(model)
    fresh = pellucid.load(model)
    for method in METHODS:
        found = scores(subject, method, **options.get(method, {}))
        np.testing.assert_allclose(found, scores(fresh, method, **options.get(method, {})), atol=1e-12, err_msg=method)
        assert not np.allclose(found, before[method])


def test_the_hash_of_the_weights_follows_them() -> None:
    model = TINY["llama"]().double()
    subject = pellucid.load(model)
    first = subject.weights_hash()
    assert first == pellucid.load(TINY["llama"]().double()).weights_hash()
    in_place(model)
    assert subject.weights_hash() != first
    assert subject.weights_hash() == pellucid.load(model).weights_hash()
