"""Second moments of keys: those of a plain loop, shrunk as scikit-learn shrinks, with an honest error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from pellucid.core.errors import InputError
from pellucid.engine.down_projection import down_projections
from pellucid.engine.key_covariance import KEPT, key_covariance
from tests.editing import TEXTS, editable, keys_of


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox-parallel"])
def test_all_layers_from_one_pass(kind: str) -> None:
    subject = editable(kind)
    layers = down_projections(subject, [0, 1])
    found = key_covariance(subject, layers, TEXTS)
    for at, one in zip(layers, found, strict=True):
        keys = torch.cat([keys_of(subject, at.layer, subject.encode(text).ids)[1:] for text in TEXTS])
        torch.testing.assert_close(one.matrix, keys.T @ keys / len(keys))
        assert one.count == len(keys)
        shrunk, amount = ledoit_wolf(keys.numpy(), assume_centered=True)
        assert one.shrinkage == pytest.approx(amount)
        np.testing.assert_allclose(one.shrunk().numpy(), shrunk, atol=1e-10)


def test_the_pass_stops_at_the_deepest_layer_and_is_made_once() -> None:
    subject = editable("llama")
    subject.state.cache.pop(KEPT, None)
    calls: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(subject.model.model.layers)
    ]
    first = key_covariance(subject, down_projections(subject, [0, 1]), TEXTS)
    assert set(calls) == {0, 1}
    batches = calls.count(0)
    assert calls.count(1) == batches
    again = key_covariance(subject, down_projections(subject, [1]), TEXTS)
    assert len(calls) == 2 * batches
    assert again[0] is first[1]
    key_covariance(subject, down_projections(subject, [1]), TEXTS[:-1])
    assert len(calls) > 2 * batches
    for handle in handles:
        handle.remove()


def test_the_error_is_of_the_size_of_the_truth() -> None:
    subject = editable("llama", torch.float32)
    at = down_projections(subject, [1])
    many = key_covariance(subject, at, None, seed=1)[0]
    few = key_covariance(subject, at, [" ".join(TEXTS[i : i + 3]) for i in range(0, 12, 3)])[0]
    own = key_covariance(subject, at, None, seed=2)[0]
    apart = float((many.matrix - own.matrix).norm() / many.matrix.norm())
    assert 0.3 * apart < np.hypot(many.error, own.error) < 3 * apart
    assert few.error > 1.3 * many.error
    assert few.shrinkage > many.shrinkage


def test_own_text_leaves_random_numbers_alone_and_repeats() -> None:
    subject = editable("gpt2")
    before = torch.get_rng_state()
    first = key_covariance(subject, down_projections(subject, [0]), None, seed=5)[0]
    assert torch.equal(before, torch.get_rng_state())
    subject.state.cache.clear()
    again = key_covariance(subject, down_projections(subject, [0]), None, seed=5)[0]
    assert torch.equal(first.matrix, again.matrix)


def test_texts_without_a_second_token_are_refused() -> None:
    subject = editable("gpt2")
    with pytest.raises(InputError, match="second token"):
        key_covariance(subject, down_projections(subject, [0]), [[5]])
