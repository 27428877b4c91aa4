"""Head gates: on a model whose needed heads are known, and the gates' effect by hooks of PyTorch."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attention.head_gates import head_gates
from tests import plain


def test_the_heads_of_the_circuit_stay_open_and_the_others_close() -> None:
    """Head 0 of layer 0 and head 1 of layer 1 compute the answer; the other two are idle or add a constant."""
    subject = pellucid.load("zoo:truth/induction")
    found = head_gates(
        subject, "red blue green red", others=["gold pink red gold", "green blue pink green"], penalty=0.02, steps=25
    )
    np.testing.assert_array_equal(found.scores > 0.5, [[True, False], [False, True]])
    values = found.evidence[0].values
    assert values["gated"] > values["all"] - 0.2


def test_a_high_price_closes_every_head() -> None:
    found = head_gates(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=17, penalty=50.0)
    np.testing.assert_array_equal(found.scores, 0)
    model = plain.tiny("gpt2")
    handles = [
        block.attn.c_proj.register_forward_pre_hook(lambda module, args: (torch.zeros_like(args[0]),))
        for block in model.transformer.h
    ]
    expected = float(plain.logits(model, plain.IDS).log_softmax(-1)[17])
    for handle in handles:
        handle.remove()
    assert found.evidence[0].values["gated"] == pytest.approx(expected, abs=1e-6)
    assert found.evidence[0].values["all"] == pytest.approx(
        float(plain.logits(model, plain.IDS).log_softmax(-1)[17]), abs=1e-6
    )


def test_free_heads_stay_as_open_as_they_help() -> None:
    """Without a price, learning raises the target; nothing of the model is touched."""
    subject = pellucid.load(plain.tiny("gpt2"))
    values = head_gates(subject, plain.IDS, target=17, penalty=0.0).evidence[0].values
    assert values["gated"] > values["all"]
