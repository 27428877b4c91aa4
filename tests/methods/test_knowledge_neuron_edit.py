"""Knowledge neurons: the columns change as the paper says, and the neurons are those of plain integrated gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.core.errors import InputError
from pellucid.core.facts import Fact
from pellucid.engine.knowledge_neurons import neuron_attributions, strongest_neurons
from pellucid.methods.editing.knowledge_neuron_edit import knowledge_neuron_edit
from tests.editing import TEXTS, editable, keys_of, matrix_of

FACT = Fact("{} is in", "Oslo", "a", "b")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_columns_change_by_the_two_words(kind: str) -> None:
    subject = editable(kind)
    neurons = [(1, 7), (1, 3), (2, 5)]
    edit = knowledge_neuron_edit(subject, FACT, neurons=neurons, remove=1.0, add=3.0, neutral=TEXTS[:2])
    assert len(edit.names) == 2
    words = subject.model.get_output_embeddings().weight.detach()
    old, new = (words[subject.tokenizer(text)["input_ids"][0]] for text in (" b", " a"))
    for name, layer in zip(edit.names, (1, 2), strict=True):
        delta = edit.delta(name) if kind == "gpt2" else edit.delta(name).T
        weight = matrix_of(subject, layer).weight.detach()
        weight = weight if kind == "gpt2" else weight.T
        own = [neuron for at, neuron in neurons if at == layer]
        for neuron in range(len(weight)):
            length = weight[neuron].norm() if neuron in own else 0.0
            expected = length * (3.0 * new / new.norm() - old / old.norm())
            np.testing.assert_allclose(delta[neuron], expected.numpy(), atol=1e-10)


def test_neurons_are_found_by_integrated_gradients() -> None:
    subject = editable("llama")
    ids, token, steps = subject.encode("Oslo is in").ids, 5, 4
    found = neuron_attributions(subject, ids, token, steps)
    for layer in range(3):
        values = keys_of(subject, layer, ids)[-1]
        expected = torch.zeros_like(values)
        for k in range(1, steps + 1):
            point = (k / steps * values).requires_grad_()

            def put(_: object, args: tuple[torch.Tensor], point: torch.Tensor = point) -> tuple[torch.Tensor]:
                return (torch.cat([args[0][:, :-1], point[None, None]], 1),)

            handle = matrix_of(subject, layer).register_forward_pre_hook(put)
            chance = subject.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)[token]
            handle.remove()
            expected += torch.autograd.grad(chance, point)[0] * values / steps
        torch.testing.assert_close(found[layer], expected.detach(), rtol=1e-6, atol=1e-12)
    best = strongest_neurons(found, 3)
    flat = torch.cat(found)
    assert [float(found[layer][i]) for layer, i in best] == flat.sort(descending=True).values[:3].tolist()


def test_found_neurons_are_used_and_unknown_ones_refused() -> None:
    subject = editable("llama")
    edit = knowledge_neuron_edit(subject, FACT, count=4, neutral=TEXTS[:2], steps=2)
    assert sum(left.shape[1] for left, _ in edit.factors.values()) == 4
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert len(account["neurons"].values) == 4
    with pytest.raises(InputError, match="layers 0 to 2 of 48 neurons"):
        knowledge_neuron_edit(subject, FACT, neurons=[(1, 48)], neutral=TEXTS[:2])
