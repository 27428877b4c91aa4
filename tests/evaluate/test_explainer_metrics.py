"""Metrics that ask an explainer again: on moved embeddings, on random weights, on twins of a model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Scores
from pellucid.engine.question import ask
from pellucid.evaluate.implementation_invariance import implementation_invariance
from pellucid.evaluate.label_randomisation import label_randomisation
from tests import plain

MODEL = plain.tiny()
SUBJECT = pellucid.load(MODEL)


def constant(subject: Any, prompt: Any, *, target: Any = None) -> Scores:
    """Explain nothing: the later a token, the higher its score."""
    return Scores(values=np.arange(1.0, 1 + len(prompt)))


def first_components(subject: Any, prompt: Any, *, target: Any = None) -> Scores:
    """Give the first component of each embedding, so that a change of it is a change of the explanation."""
    question = ask(subject, prompt, target=target)
    return Scores(values=question.embeddings()[:, 0].double().numpy())


@pytest.mark.parametrize("explainer", ["gradient_x_input", "occlusion"])
def test_max_sensitivity_is_the_largest_relative_change(explainer: str) -> None:
    more: dict[str, Any] = {"replacement": 3} if explainer == "occlusion" else {}
    found = pellucid.run("max_sensitivity", SUBJECT, plain.IDS, explainer=explainer, samples=4, settings=more).values
    assert 0 < found["mean"] < found["value"] < 1
    wider = pellucid.run(
        "max_sensitivity", SUBJECT, plain.IDS, explainer=explainer, samples=4, settings=more, radius=0.2
    ).values
    assert wider["value"] > 5 * found["value"]
    assert pellucid.run("max_sensitivity", SUBJECT, plain.IDS, explainer=constant).values["value"] == 0


def test_max_sensitivity_by_hand() -> None:
    """The explanation is the first component of each embedding, and so its change is that of the noise."""
    found = pellucid.run(
        "max_sensitivity", SUBJECT, plain.IDS, explainer=first_components, samples=3, radius=0.5, seed=4
    ).values
    embeddings = plain.embeddings(MODEL, plain.IDS)
    generator = torch.Generator().manual_seed(4)
    noise = [2 * torch.rand(embeddings.shape, generator=generator, dtype=torch.float64) - 1 for _ in range(3)]
    moves = [float((0.5 * embeddings.std() * n[:, 0]).norm() / embeddings[:, 0].norm()) for n in noise]
    assert found["value"] == pytest.approx(max(moves))
    assert found["mean"] == pytest.approx(np.mean(moves))


def test_parameter_randomisation() -> None:
    """An explanation that ignores the model keeps its ranking over all steps; the model itself is not changed."""
    before = {name: weight.clone() for name, weight in MODEL.state_dict().items()}
    asked: dict[str, Any] = {"target": plain.TARGET, "settings": {"replacement": 3}}
    found = pellucid.run("parameter_randomisation", SUBJECT, plain.IDS, explainer="occlusion", **asked)
    assert len(found.curves["x"]) == 2 + SUBJECT.layers
    assert found.values["value"] == pytest.approx(np.mean(found.curves["correlation"]))
    blind = pellucid.run("parameter_randomisation", SUBJECT, plain.IDS, explainer=constant)
    assert blind.values == {"value": 1, "last": 1}
    assert all(torch.equal(weight, before[name]) for name, weight in MODEL.state_dict().items())


def test_parameter_randomisation_goes_from_the_top() -> None:
    """The embeddings become random last, so an explanation that shows them alone changes at the last step."""
    found = pellucid.run("parameter_randomisation", SUBJECT, plain.IDS, explainer=first_components)
    *early, last = found.curves["correlation"]
    assert early == pytest.approx([1] * len(early))
    assert abs(last) < 0.999


def test_random_models_agree_by_chance_alone() -> None:
    """Over 15 seeds, when all is random, the mean correlation is 0 within its error for embedding components."""
    found = [
        pellucid.run("parameter_randomisation", SUBJECT, plain.IDS, explainer=first_components, seed=seed)
        .values["last"] for seed in range(15)
    ]  # fmt: skip
    assert abs(np.mean(found)) < 3.5 * np.std(found, ddof=1) / 15**0.5


def test_label_randomisation() -> None:
    """The twin uses the words b and d where the first uses a: 3, 1, 0, 0 against 0, 2, 0, -1 by size."""
    first = pellucid.load(lambda texts: [3.0 * ("a" in t) + 1.0 * ("b" in t) for t in texts])
    twin = pellucid.load(lambda texts: [2.0 * ("b" in t) - 1.0 * ("d" in t) for t in texts])
    words = {"unit": "word"}
    found = label_randomisation([first, twin], ["a b c d"], "occlusion", settings=words).values["value"]
    assert found == pytest.approx(np.corrcoef([4, 3, 1.5, 1.5], [1.5, 4, 1.5, 3])[0, 1])
    same = label_randomisation([first, first], ["a b c d", "b a"], "occlusion", settings=words)
    assert same.values["value"] == pytest.approx(1)
    assert len(same.curves["x"]) == 2
    with pytest.raises(InputError, match="twin"):
        label_randomisation([first], ["a b"], "occlusion")


def test_implementation_invariance() -> None:
    """Neurons in another order compute the same; a method that looks at the function alone explains both alike."""
    twin = copy.deepcopy(MODEL)
    order = torch.randperm(twin.transformer.h[0].mlp.c_fc.nf, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in twin.transformer.h:
            block.mlp.c_fc.weight.copy_(block.mlp.c_fc.weight[:, order])
            block.mlp.c_fc.bias.copy_(block.mlp.c_fc.bias[order])
            block.mlp.c_proj.weight.copy_(block.mlp.c_proj.weight[order])
    models = [SUBJECT, pellucid.load(twin)]
    found = implementation_invariance(models, plain.IDS, "occlusion", settings={"replacement": 3})
    assert found.values["value"] < 1e-6
    assert found.ok

    def first_neuron(subject: Any, prompt: Any, *, target: Any = None) -> Scores:
        return Scores(values=subject.model.transformer.h[0].mlp.c_fc.weight[:, 0].detach().double().numpy())

    assert implementation_invariance(models, plain.IDS, first_neuron).values["value"] > 0.1
    other = copy.deepcopy(MODEL)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight.mul_(2)
    models[1] = pellucid.load(other)
    with pytest.raises(InputError, match="compute the same"):
        implementation_invariance(models, plain.IDS, "occlusion")


def test_what_is_no_explainer_is_refused() -> None:
    with pytest.raises(InputError, match="finite Scores"):
        pellucid.run("max_sensitivity", SUBJECT, plain.IDS, explainer=lambda subject, prompt, *, target: None)


def one_high(index: int) -> Scores:
    shown = pellucid.run("occlusion", SUBJECT, plain.IDS, target=plain.TARGET, replacement=3)
    return Scores(values=np.eye(len(plain.IDS))[index], tokens=shown.tokens, units=shown.units)


def probability(embeddings: torch.Tensor) -> float:
    with torch.no_grad():
        return float(plain.from_embeddings(MODEL, embeddings).softmax(-1)[plain.TARGET])


def test_soft_metrics_without_chance_are_hard_ones() -> None:
    """With scores of 0 and 1 every draw is certain: one embedding is zero, or all but one."""
    whole = plain.embeddings(MODEL, plain.IDS)
    target = pellucid.Target(plain.TARGET)
    full, nothing = probability(whole), probability(torch.zeros_like(whole))
    losing = full > nothing
    for index in range(3):
        faded, alone = whole.clone(), torch.zeros_like(whole)
        faded[index], alone[index] = 0, whole[index]
        asked: dict[str, Any] = {"scores": one_high(index), "target": target, "samples": 2, "orders": 2}
        found = pellucid.run("soft_comprehensiveness", SUBJECT, plain.IDS, **asked).values
        assert found["loss"] == pytest.approx(max(0, full - probability(faded)))
        assert found["loss_of_all"] == pytest.approx(max(0, full - nothing))
        if losing:
            assert found["value"] == pytest.approx(found["loss"] / found["loss_of_all"])
        found = pellucid.run("soft_sufficiency", SUBJECT, plain.IDS, **asked).values
        assert found["loss"] == pytest.approx(max(0, full - probability(alone)))
        if losing:
            assert found["value"] == pytest.approx(1 - found["loss"] / found["loss_of_all"])


def test_soft_masks_are_bernoulli_draws_per_component() -> None:
    """Half scores keep about half of the components; the loss is the mean over masks made as plainly as the paper."""
    whole, keep = plain.embeddings(MODEL, plain.IDS), np.linspace(0, 1, len(plain.IDS))
    scores = one_high(0)
    given = Scores(values=keep, tokens=scores.tokens, units=scores.units)
    asked: dict[str, Any] = {"scores": given, "target": plain.TARGET, "orders": 0}
    found = pellucid.run("soft_sufficiency", SUBJECT, plain.IDS, samples=200, **asked).values
    rng, lost = np.random.default_rng(0), []
    for _ in range(200):
        mask = torch.tensor(rng.random(whole.shape) < keep[:, None])
        lost.append(max(0.0, probability(whole) - probability(whole * mask)))
    assert found["loss"] == pytest.approx(np.mean(lost), abs=4 * np.std(lost) / 200**0.5 + 1e-12)
