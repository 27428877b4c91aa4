"""Feed-forward memories: strongest prefixes and values by hand, and planted cells."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.reading.feed_forward_memory import feed_forward_memory
from pellucid.zoo import truth
from tests import plain

PROMPTS = [plain.IDS, [5, 9, 30], [7, 7, 61, 22, 14, 3, 90]]


def test_strongest_prefixes_and_values_by_hand() -> None:
    model = plain.tiny()
    found = feed_forward_memory(pellucid.load(model), PROMPTS, layers=[1], neurons=[3, 50, 99], tokens=1)
    module = model.transformer.h[1].mlp.c_proj
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda m, args: seen.append(args[0][0].detach()))
    for ids in PROMPTS:
        plain.logits(model, ids)
    handle.remove()
    for layer, neuron, activation, prefix, _, _, agrees in found.rows:
        cells = [(float(values[p, neuron]), i, p) for i, values in enumerate(seen) for p in range(len(PROMPTS[i]) - 1)]
        value, which, position = max(cells)
        assert layer == 1
        assert activation == pytest.approx(value, abs=1e-6)
        assert prefix.count("⟨") == position + 1
        gain = model.transformer.ln_f.weight.detach()
        row = module.weight[neuron].detach()
        top = int((model.lm_head.weight.detach() @ ((row - row.mean()) * gain)).argmax())
        assert agrees == int(top == PROMPTS[which][position + 1])


def test_a_planted_cell_holds_what_it_is_for() -> None:
    """In `two-step`, the neuron "rome -> italy" fires at "country" after ann, and italy follows."""
    known, subject = truth.answer("two-step"), pellucid.load("zoo:truth/two-step")
    cells = [n for n in known["neurons"] if n["layer"] == 1 and n["relevant"]]
    prompts = [[*p["ids"], p["target"]] for p in known["prompts"][::3]]
    found = feed_forward_memory(subject, prompts, layers=[1], neurons=[n["neuron"] for n in cells], tokens=1)
    for cell, row in zip(cells, found.rows, strict=True):
        assert cell["role"].endswith(f"-> {row[5]}")
        assert row[4] == row[5]
    assert found.evidence[0].values["agreement"] == 1
    assert found.evidence[0].values["random"] < 1


def test_prompts_without_a_next_token_are_refused() -> None:
    with pytest.raises(InputError, match="two or more tokens"):
        feed_forward_memory(pellucid.load(plain.tiny()), [[5]])
