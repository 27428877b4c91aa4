"""Path lesions against models whose blocks were taken out or reordered by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.targets import Target
from pellucid.methods.reading.logit_lens import logit_lens
from pellucid.methods.reading.path_lesion import path_lesion
from tests import plain
from tests.state import changed, model_state

BLOCKS = {
    "gpt2": "transformer.h", "llama": "model.layers", "neox-parallel": "gpt_neox.layers", "gemma2": "model.layers",
    "mixtral": "model.layers", "bert-classifier": "bert.encoder.layer",
}  # fmt: skip


def reordered(name: str, order: list[int]) -> float:
    """The logit of class or token 1 with only the blocks named, in that order."""
    model = plain.tiny(name)
    path = BLOCKS[name]
    blocks = model.get_submodule(path)
    parent = model.get_submodule(path.rpartition(".")[0])
    setattr(parent, path.rpartition(".")[2], torch.nn.ModuleList([copy.deepcopy(blocks[i]) for i in order]))
    if hasattr(model.config, "layer_types"):
        model.config.layer_types = [model.config.layer_types[i] for i in order]
    for config in {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values():
        config.num_hidden_layers = len(order)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS]), use_cache=False).logits[0]
    return float(logits[1] if logits.ndim == 1 else logits[-1, 1])


def whole(name: str) -> list[int]:
    return list(range(len(plain.tiny(name).get_submodule(BLOCKS[name]))))


@pytest.mark.parametrize("name", list(BLOCKS))
def test_dropping_equals_a_model_without_the_block(name: str) -> None:
    order = whole(name)
    full = reordered(name, order)
    expected = [full - reordered(name, [i for i in order if i != gone]) for gone in order]
    found = path_lesion(pellucid.load(plain.tiny(name)), plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    assert np.abs(found.scores).max() > 1e-4


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox-parallel", "bert-classifier"])
def test_swapping_equals_a_model_with_the_blocks_in_that_order(name: str) -> None:
    model = plain.tiny(name)
    before = model_state(model)
    found = path_lesion(pellucid.load(model), plain.IDS, target=1, lesion="swap")
    assert found.scores[0] == pytest.approx(reordered(name, [0, 1]) - reordered(name, [1, 0]), abs=1e-9)
    assert found.labels["layer"] == ("0 and 1",)
    assert changed(before, model_state(model)) == []


def test_dropping_a_part_of_each_block() -> None:
    model = plain.tiny("llama")
    found = path_lesion(pellucid.load(model), plain.IDS, target=1, part="mlp")
    for layer in (0, 1):
        cut = plain.tiny("llama")
        cut.model.layers[layer].mlp.down_proj.weight.data.zero_()
        expected = plain.logits(model, plain.IDS)[1] - plain.logits(cut, plain.IDS)[1]
        assert found.scores[layer] == pytest.approx(float(expected), abs=1e-9)


def test_without_any_block_only_the_embedding_speaks() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    several = path_lesion(subject, plain.IDS, target=1, several=True, samples=3)
    assert several.axes == ("fraction",)
    assert several.labels["fraction"] == ("1/2", "2/2")
    embedding = logit_lens(subject, plain.IDS, target=1, site="resid_pre", measure="logit").scores[0, -1]
    value = float(plain.logits(subject.model, plain.IDS)[1])
    assert several.scores[-1] == pytest.approx(value - embedding, abs=1e-9)
    assert several.std_error is not None
    assert several.std_error[-1] == pytest.approx(0, abs=1e-12)
    swaps = path_lesion(subject, plain.IDS, target=1, lesion="swap", several=True)
    assert swaps.scores[0] == pytest.approx(path_lesion(subject, plain.IDS, target=1, lesion="swap").scores[0])


def test_the_loss_of_a_continuation() -> None:
    found = path_lesion(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=Target.continuation([3, 4, 5]))
    model = plain.tiny("gpt2")
    model.transformer.h = model.transformer.h[1:]

    def log_prob(on: torch.nn.Module) -> float:
        with torch.no_grad():
            given = on(input_ids=torch.tensor([[*plain.IDS, 3, 4]]), use_cache=False).logits[0, -3:].log_softmax(-1)
        return float(given[[0, 1, 2], [3, 4, 5]].sum())

    assert found.scores[0] == pytest.approx(log_prob(plain.tiny("gpt2")) - log_prob(model), abs=1e-9)


def test_what_cannot_be_swapped_is_refused() -> None:
    with pytest.raises(InputError, match="whole blocks"):
        path_lesion(pellucid.load(plain.tiny("llama")), plain.IDS, target=1, lesion="swap", part="mlp")
    with pytest.raises(CapabilityError, match="share modules"):
        path_lesion(pellucid.load(plain.tiny("albert-classifier")), plain.IDS, target=1, lesion="swap")
