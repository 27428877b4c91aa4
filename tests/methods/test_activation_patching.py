"""Activation patching against hand-written hooks, one forward per cell."""

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, SiteError
from pellucid.methods.patching.activation_patching import activation_patching
from tests import plain

CORRUPT = [11, 42, 8, 23, 64, 5]


def residuals(model: Any, ids: list[int]) -> list[torch.Tensor]:
    """Return the input of every block."""
    with torch.no_grad():
        return list(model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[:-1])


def test_residual_grid_equals_hooks_by_hand() -> None:
    model = plain.tiny("llama")
    clean = residuals(model, plain.IDS)
    base = plain.logits(model, CORRUPT)[plain.TARGET]
    expected = np.zeros((2, 6))
    for layer in range(2):
        for position in range(6):

            def patch(module: Any, args: Any, kwargs: Any, layer: int = layer, position: int = position) -> Any:
                hidden = args[0].clone()
                hidden[0, position] = clean[layer][0, position]
                return (hidden, *args[1:]), kwargs

            handle = model.model.layers[layer].register_forward_pre_hook(patch, with_kwargs=True)
            expected[layer, position] = float(plain.logits(model, CORRUPT)[plain.TARGET] - base)
            handle.remove()
    found = activation_patching(pellucid.load(model), plain.IDS, corrupt=CORRUPT, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    assert found.axes == ("layer", "position")


def test_a_head_is_patched_before_the_output_projection() -> None:
    model = plain.tiny("gpt2")
    captured: dict[int, torch.Tensor] = {}
    handles = [
        block.attn.c_proj.register_forward_pre_hook(lambda m, a, i=i: captured.__setitem__(i, a[0].detach()))
        for i, block in enumerate(model.transformer.h)
    ]
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    base = plain.logits(model, CORRUPT)[plain.TARGET]
    found = activation_patching(pellucid.load(model), plain.IDS, corrupt=CORRUPT, target=plain.TARGET, site="attn.z")
    assert found.axes == ("layer", "head", "position")
    for layer, head, position in [(0, 1, 2), (1, 3, 5), (1, 0, 4)]:

        def patch(module: Any, args: Any, layer: int = layer, head: int = head, position: int = position) -> Any:
            z = args[0].clone()
            z[0, position, 8 * head : 8 * head + 8] = captured[layer][0, position, 8 * head : 8 * head + 8]
            return (z,)

        handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(patch)
        expected = float(plain.logits(model, CORRUPT)[plain.TARGET] - base)
        handle.remove()
        assert found.scores[layer, head, position] == pytest.approx(expected, abs=1e-10)


def test_all_of_the_first_residual_brings_the_clean_answer_back() -> None:
    """The prompts differ at one token, so patching that position of layer 0 is the clean run."""
    model = plain.tiny()
    found = activation_patching(pellucid.load(model), plain.IDS, corrupt=CORRUPT, target=plain.TARGET)
    full = found.evidence[0].values["difference"]
    assert found.scores[0, 2] == pytest.approx(full, abs=1e-10)
    np.testing.assert_allclose(np.delete(found.scores[0], 2), 0, atol=1e-10)


def test_all_positions_of_a_head_together_equal_a_hook_on_the_head() -> None:
    model = plain.tiny("gpt2")
    projection = model.transformer.h[1].attn.c_proj
    captured: list[torch.Tensor] = []
    handle = projection.register_forward_pre_hook(lambda m, a: captured.append(a[0].detach()))
    plain.logits(model, plain.IDS)
    handle.remove()
    subject, base = pellucid.load(model), plain.logits(model, CORRUPT)[plain.TARGET]
    asked: dict[str, Any] = {"corrupt": CORRUPT, "target": plain.TARGET, "positions": "all"}
    found = activation_patching(subject, plain.IDS, site="attn.z", **asked)
    assert found.axes == ("layer", "head")
    for head in range(4):

        def patch(module: Any, args: Any, head: int = head) -> Any:
            z = args[0].clone()
            z[..., 8 * head : 8 * head + 8] = captured[0][..., 8 * head : 8 * head + 8]
            return (z,)

        handle = projection.register_forward_pre_hook(patch)
        expected = float(plain.logits(model, CORRUPT)[plain.TARGET] - base)
        handle.remove()
        assert found.scores[1, head] == pytest.approx(expected, abs=1e-10)
    streams = activation_patching(subject, plain.IDS, **asked)
    assert streams.axes == ("layer",)
    np.testing.assert_allclose(streams.scores, streams.evidence[0].values["difference"], atol=1e-10)


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gptj"))
    with pytest.raises(InputError, match="equal length"):
        activation_patching(subject, plain.IDS, corrupt=CORRUPT[:-1], target=plain.TARGET)
    with pytest.raises(SiteError, match="resid_mid"):
        activation_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, site="resid_mid")
    with pytest.raises(SiteError, match="did you mean 'resid_pre'"):
        activation_patching(subject, plain.IDS, corrupt=CORRUPT, target=plain.TARGET, site="resid_pr")


def test_a_pair_aligns_prompts_of_different_length() -> None:
    """Position 3 of the clean run goes to position 4 of a longer corrupted one: by hand, on the last block's input."""
    model = plain.tiny()
    longer = [11, 42, 9, 8, 23, 64, 5]
    clean = residuals(model, plain.IDS)
    base = plain.logits(model, longer)[plain.TARGET]

    def patch(module: Any, args: Any) -> Any:
        hidden = args[0].clone()
        hidden[0, 4] = clean[1][0, 3]
        return (hidden, *args[1:])

    handle = model.transformer.h[1].register_forward_pre_hook(patch)
    expected = float(plain.logits(model, longer)[plain.TARGET] - base)
    handle.remove()
    pair = pellucid.Pair(plain.IDS, longer, alignment=((0, 0), (3, 4)))
    found = activation_patching(pellucid.load(model), pair, target=plain.TARGET)
    assert found.scores[1, 4] == pytest.approx(expected, abs=1e-10)
    np.testing.assert_array_equal(found.scores[:, [1, 2, 3, 5, 6]], 0)
    together = activation_patching(pellucid.load(model), pair, target=plain.TARGET, positions="all")
    moved = [clean[1][0, 0], clean[1][0, 3]]

    def patch_both(module: Any, args: Any) -> Any:
        hidden = args[0].clone()
        hidden[0, 0], hidden[0, 4] = moved
        return (hidden, *args[1:])

    handle = model.transformer.h[1].register_forward_pre_hook(patch_both)
    expected = float(plain.logits(model, longer)[plain.TARGET] - base)
    handle.remove()
    assert together.scores[1] == pytest.approx(expected, abs=1e-10)
