"""Ablation against hooks written by hand, and on planted heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.patching.ablation import ablation
from pellucid.zoo import truth
from tests import plain

OTHER, LONG = [5, 9, 30], [7, 7, 61, 2, 14, 3, 90]


@pytest.fixture(scope="module")
def model() -> Any:
    """Give one tiny model."""
    return plain.tiny()


@pytest.fixture(scope="module")
def subject(model: Any) -> pellucid.Subject:
    """Give it loaded."""
    return pellucid.load(model)


def seen(module: torch.nn.Module, model: Any, ids: list[int]) -> torch.Tensor:
    """Return what a module is given: [position, width]."""
    kept: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda m, args: kept.append(args[0][0].detach()))
    plain.logits(model, ids)
    handle.remove()
    return kept[0]


def replaced(model: Any, module: torch.nn.Module, columns: slice, value: torch.Tensor, ids: list[int]) -> float:
    """Return the drop of the target's logit when columns of a module's input are replaced everywhere."""

    def put(m: torch.nn.Module, args: Any) -> Any:
        new = args[0].clone()
        new[0, :, columns] = value
        return (new,)

    before = float(plain.logits(model, ids)[plain.TARGET])
    handle = module.register_forward_pre_hook(put)
    after = float(plain.logits(model, ids)[plain.TARGET])
    handle.remove()
    return before - after


def test_zero_and_mean_of_heads_by_hand(model: Any, subject: pellucid.Subject) -> None:
    zero = ablation(subject, plain.IDS, target=plain.TARGET, value="zero")
    mean = ablation(subject, plain.IDS, target=plain.TARGET, references=[OTHER, LONG])
    placed = ablation(
        subject, plain.IDS, target=plain.TARGET, references=[plain.IDS, LONG], per_position=True
    )  # fmt: skip
    assert zero.axes == ("layer", "head")
    for layer, head in [(0, 1), (1, 0), (1, 3)]:
        module, columns = model.transformer.h[layer].attn.c_proj, slice(8 * head, 8 * head + 8)
        mix = {tuple(ids): seen(module, model, ids)[:, columns] for ids in (plain.IDS, OTHER, LONG)}
        pooled = torch.cat([mix[tuple(OTHER)], mix[tuple(LONG)]]).mean(0)  # long prompts weigh more: a mean of values
        each = (mix[tuple(plain.IDS)] + mix[tuple(LONG)][:6]) / 2
        for found, value in ((zero, torch.zeros(8)), (mean, pooled), (placed, each)):
            expected = replaced(model, module, columns, value, plain.IDS)
            assert found.values[layer, head] == pytest.approx(expected, abs=1e-10)


def test_neuron_groups_and_layers_by_hand(model: Any, subject: pellucid.Subject) -> None:
    groups = ablation(subject, plain.IDS, target=plain.TARGET, site="mlp.post", value="zero", group=50)
    assert groups.values.shape == (2, 3)
    layers = ablation(subject, plain.IDS, target=plain.TARGET, site="mlp.out", value="zero")
    assert layers.axes == ("layer",)
    for layer in range(2):
        module = model.transformer.h[layer].mlp.c_proj
        for number, columns in enumerate((slice(0, 50), slice(50, 100), slice(100, 128))):
            expected = replaced(model, module, columns, torch.zeros(()), plain.IDS)
            assert groups.values[layer, number] == pytest.approx(expected, abs=1e-10)
        mlp = model.transformer.h[layer].mlp
        handle = mlp.register_forward_hook(lambda m, args, out: out * 0)
        expected = -float(plain.logits(model, plain.IDS)[plain.TARGET])
        handle.remove()
        expected += float(plain.logits(model, plain.IDS)[plain.TARGET])
        assert layers.values[layer] == pytest.approx(expected, abs=1e-10)


def test_draws_come_from_the_references(model: Any, subject: pellucid.Subject) -> None:
    """One reference of one token leaves nothing to chance; noise of a constant is none."""
    only = ablation(subject, plain.IDS, target=plain.TARGET, references=[[9]], value="resample", samples=2)
    mean = ablation(subject, plain.IDS, target=plain.TARGET, references=[[9]], value="mean")
    np.testing.assert_allclose(only.values, mean.values, atol=1e-12)
    assert only.std_error is not None
    np.testing.assert_allclose(only.std_error, 0, atol=1e-12)
    still = ablation(subject, plain.IDS, target=plain.TARGET, references=[[9]], value="noise")
    np.testing.assert_allclose(still.values, 0, atol=1e-12)
    loud = ablation(subject, plain.IDS, target=plain.TARGET, references=[LONG], value="noise", samples=3)
    assert np.abs(loud.values).max() > 1e-4
    assert loud.std_error is not None
    assert loud.std_error.max() > 0


def test_several_prompts_are_paired(subject: pellucid.Subject) -> None:
    references = [plain.IDS, OTHER]
    found = ablation(subject, plain.IDS, others=[OTHER], target=plain.TARGET, references=references)
    single = [
        ablation(subject, ids, target=plain.TARGET, references=references).values for ids in (plain.IDS, OTHER)
    ]  # fmt: skip
    np.testing.assert_allclose(found.values, np.mean(single, 0), atol=1e-12)
    np.testing.assert_allclose(found.std_error, np.std(single, 0, ddof=1) / 2**0.5, atol=1e-12)
    assert [evidence.name for evidence in found.evidence] == ["null of equal norm", "paired interval"]


def test_the_planted_head_alone_matters() -> None:
    known = truth.answer("two-step")
    subject = pellucid.load("zoo:truth/two-step")
    first, *rest = known["prompts"][::11]
    asked = {"target": first["target"], "other_targets": [prompt["target"] for prompt in rest]}
    found = ablation(subject, first["ids"], others=[prompt["ids"] for prompt in rest], value="zero", **asked)
    for head in known["heads"]:
        effect = found.values[head["layer"], head["head"]]
        assert effect > 4 if head["relevant"] else abs(effect) < 1e-4
    neurons = ablation(subject, first["ids"], target=first["target"], value="zero", site="mlp.post")
    lost = {(int(layer), int(neuron)) for layer, neuron in np.argwhere(np.abs(neurons.values) > 1e-3)}
    assert lost <= {(n["layer"], n["neuron"]) for n in known["neurons"] if n["relevant"]}
    assert len(lost) == 2


def test_bad_input_is_refused(subject: pellucid.Subject) -> None:
    with pytest.raises(InputError, match="3 tokens, but the prompt has 6"):
        ablation(subject, plain.IDS, target=1, references=[OTHER], per_position=True)
    with pytest.raises(InputError, match="no positions"):
        ablation(subject, plain.IDS, target=1, site="attn.pattern")
