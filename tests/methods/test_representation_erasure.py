"""Representation erasure against a plain hook that zeroes one part."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.errors import InputError
from pellucid.methods.attribution.representation_erasure import representation_erasure
from tests import plain


def without(model: torch.nn.Module, module: torch.nn.Module, erase: Callable[[torch.Tensor], None]) -> float:
    def hook(_: object, __: object, output: object) -> object:
        value = output[0] if isinstance(output, tuple) else output
        changed = value.clone()
        erase(changed)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(hook)
    try:
        return float(plain.logits(model, plain.IDS)[plain.TARGET])
    finally:
        handle.remove()


def test_a_dimension_of_every_block_is_erased_everywhere() -> None:
    model = plain.tiny()
    whole = float(plain.logits(model, plain.IDS)[plain.TARGET])
    expected = np.zeros((2, 32))
    for layer in range(2):
        for d in range(32):

            def erase(value: torch.Tensor, d: int = d) -> None:
                value[..., d] = 0

            expected[layer, d] = whole - without(model, model.transformer.h[layer], erase)
    found = representation_erasure(pellucid.load(model), plain.IDS, target=plain.TARGET)
    assert found.axes == ("layer", "dimension")
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    relative = representation_erasure(pellucid.load(model), plain.IDS, target=plain.TARGET, relative=True)
    np.testing.assert_allclose(relative.scores, expected / abs(whole), atol=1e-10)


def test_an_embedding_dimension_and_a_hidden_unit() -> None:
    model = plain.tiny()
    whole = float(plain.logits(model, plain.IDS)[plain.TARGET])

    def dimension(value: torch.Tensor) -> None:
        value[..., 5] = 0

    def hidden(value: torch.Tensor) -> None:
        value[:, 4, 9] = 0

    subject = pellucid.load(model)
    embedded = representation_erasure(subject, plain.IDS, target=plain.TARGET, site="embed.token")
    assert embedded.axes == ("dimension",)
    assert embedded.scores[5] == pytest.approx(whole - without(model, model.transformer.wte, dimension), abs=1e-10)
    found = representation_erasure(subject, plain.IDS, target=plain.TARGET, site="mlp.post", position=-2)
    assert found.axes == ("layer", "neuron")
    expected = whole - without(model, model.transformer.h[1].mlp.act, hidden)
    assert found.scores[1, 9] == pytest.approx(expected, abs=1e-10)


def test_heads_are_erased_whole_and_each_target_has_its_own_column() -> None:
    subject = pellucid.load(plain.tiny())
    target = Target.continuation([17, 20], each=True)
    found = representation_erasure(subject, plain.IDS, target=target, site="attn.z")
    assert found.axes == ("layer", "head", "target")
    assert found.scores.shape == (2, 4, 2)
    summed = representation_erasure(subject, plain.IDS, target=Target.continuation([17, 20]), site="attn.z")
    np.testing.assert_allclose(found.scores.sum(-1), summed.scores, atol=1e-10)


def test_the_mean_over_examples_is_the_mean_of_the_results() -> None:
    subject, prompts = pellucid.load(plain.tiny()), [plain.IDS, plain.IDS[::-1]]
    found = representation_erasure(subject, prompts, target=plain.TARGET, relative=True, site="blocks.0.resid_post")
    importance = np.mean([one.scores for one in found], axis=0)
    assert importance.shape == (32,)
    assert np.isfinite(importance).all()


def test_a_position_outside_the_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="Position 6"):
        representation_erasure(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET, position=6)
