"""Value zeroing against a plain loop that hooks the value projection, and its ways against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.behind_attention import behind_attention
from pellucid.engine.transformed import attention_blocks
from pellucid.methods.vectors import value_zeroing as module
from pellucid.methods.vectors.value_zeroing import value_zeroing
from tests import plain
from tests.engine.test_transformed import NAMES

SHAPES = [
    "modernbert-classifier",
    "neox-parallel",
    "opt-post-norm",
    "bloom",
    "falcon-new",
    "mixtral",
    "gemma2",
    "granite",
    "t5",
]


def parts(model: Any, name: str) -> list[tuple[Any, Any, slice, Any]]:
    """For each layer the block, its value projection, the part of its output that is values, and what is behind."""
    if name == "gpt2":
        return [(b, b.attn.c_attn, slice(64, 96), b.ln_2) for b in model.transformer.h]
    if name == "llama":
        everything = slice(None)
        return [(b, b.self_attn.v_proj, everything, b.post_attention_layernorm) for b in model.model.layers]
    return [(b, b.attention.self.value, slice(None), b.attention.output) for b in model.bert.encoder.layer]


def outputs(model: Any, name: str, layer: int, key: int | None, compare: str) -> torch.Tensor:
    """What leaves a block (or stands behind its attention) in a run with the value of one token set to zero there."""
    block, projection, values, behind = parts(model, name)[layer]
    kept: list[torch.Tensor] = []

    def zero(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        if key is not None:
            output[0, key, values] = 0
        return output

    def keep(_: Any, inputs: Any, output: Any) -> None:
        norm_first = compare == "attention" and name != "bert-classifier"
        value = inputs[0] if norm_first else output
        kept.append((value[0] if isinstance(value, tuple) else value)[0])

    where = block if compare == "block" else behind
    handles = [projection.register_forward_hook(zero), where.register_forward_hook(keep)]
    with torch.no_grad():
        model(input_ids=torch.tensor([plain.IDS]))
    for handle in handles:
        handle.remove()
    return kept[0]


@pytest.mark.parametrize("compare", ["block", "attention"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_a_loop_that_hooks_the_value_projection(name: str, compare: str) -> None:
    model = plain.tiny(name)
    total = torch.eye(6, dtype=torch.float64)
    for layer in range(2):
        clean = outputs(model, name, layer, None, compare)
        without = [outputs(model, name, layer, key, compare) for key in range(6)]
        turned = 1 - torch.stack([torch.cosine_similarity(x, clean, dim=-1) for x in without], 1)
        total = turned / turned.sum(-1, keepdim=True) @ total
    found = value_zeroing(pellucid.load(model), plain.IDS, target=1, compare=compare)
    np.testing.assert_allclose(found.scores, total[0 if "bert" in name else -1].numpy(), atol=1e-5)
    assert found.scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", SHAPES)
def test_taking_vectors_away_equals_runs_with_values_at_zero(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(plain.tiny(name))
    quick = value_zeroing(subject, plain.IDS, target=1)
    assert quick.provenance.forwards <= 3
    monkeypatch.setattr(module, "_ways", lambda *_: None)
    slow = value_zeroing(subject, plain.IDS, target=1)
    assert slow.provenance.forwards > 12
    np.testing.assert_allclose(quick.scores, slow.scores, atol=1e-5)


def test_a_block_that_cannot_be_cut_is_run_with_edits() -> None:
    """ALBERT's attention holds the norm behind it; an edit of the feed-forward layer belongs to the run."""
    albert = pellucid.load(plain.tiny("albert-classifier"))
    tokens = albert.encode(plain.IDS)
    assert behind_attention(albert, tokens, attention_blocks(albert, tokens)) is None
    assert value_zeroing(albert, plain.IDS, target=1).scores.sum() == pytest.approx(1)
    subject = pellucid.load(plain.tiny("llama"))
    edited = subject.with_(pellucid.Edit("blocks.0.mlp.out", "scale", 3.0))
    scores = [value_zeroing(on, plain.IDS, target=1).scores for on in (subject, edited)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
