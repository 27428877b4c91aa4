"""Recall dissection: each step against the model run by hand, and on a planted fact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.methods.patching.attention_knockout import attention_knockout
from pellucid.methods.patching.recall_dissection import recall_dissection
from pellucid.zoo import truth
from tests import plain


def test_steps_equal_the_model_by_hand() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    attributes = [3, 50, 71]
    found = recall_dissection(
        subject, plain.IDS, entity=[1, 2], target=plain.TARGET, attributes=attributes, top=30
    )  # fmt: skip
    kept: dict[tuple[int, str], torch.Tensor] = {}
    handles = []
    for i, block in enumerate(model.transformer.h):
        for name, module in (("attn", block.attn), ("mlp", block.mlp), ("block", block)):
            handles.append(
                module.register_forward_hook(
                    lambda m, a, out, key=(i, name): kept.update({key: out[0] if isinstance(out, tuple) else out})
                )
            )
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    gain = model.transformer.ln_f.weight
    for layer in range(2):
        with torch.no_grad():
            stream = kept[layer, "block"].reshape(6, -1)[2]
            top = model.lm_head(model.transformer.ln_f(stream)).topk(30).indices.tolist()
            assert found.values[0, layer] == pytest.approx(len(set(top) & set(attributes)) / 3)
            for row, name in ((4, "attn"), (5, "mlp")):
                update = kept[layer, name].reshape(6, -1)[-1]
                logits = model.lm_head((update - update.mean()) * gain)
                rank = logits.argsort(descending=True).tolist().index(plain.TARGET) + 1
                assert found.values[row, layer] == pytest.approx(1 / rank)
    for row, units in ((1, [(1, 3)]), (3, [(5, 6)])):
        flow = attention_knockout(subject, plain.IDS, target=plain.TARGET, unit=units, relative=True)
        np.testing.assert_allclose(found.values[row], flow.values[:, 0], atol=1e-10)


def test_the_planted_fact_flows_from_its_entity_and_is_extracted() -> None:
    """In `two-step`, block 0 enriches the person, and attention of block 1 takes the city to the last token."""
    prompt, subject = truth.answer("two-step")["prompts"][1], pellucid.load("zoo:truth/two-step")
    person = 1 + int(np.argmax(prompt["truth"][:-1]))
    found = recall_dissection(subject, prompt["ids"], entity=[person], target=prompt["target"])
    flow = found.values[1:3]
    assert flow[0, 1] > 0.5
    np.testing.assert_allclose([flow[0, 0], flow[1, 0]], 0, atol=1e-4)
    assert found.values[5, 1] == 1  # the feed-forward layer behind it says the country
    assert found.values[5, 0] < 1


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="positions 0 to 4"):
        recall_dissection(pellucid.load(plain.tiny()), plain.IDS, entity=[5], target=1)
    with pytest.raises(CapabilityError, match="load a decoder"):
        recall_dissection(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
