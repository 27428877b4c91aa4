"""Value zeroing against a plain loop that hooks the value projection, and its ways against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine.behind_attention import behind_attention
from pellucid.engine.entrance import entrance
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


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert-classifier", "opt-post-norm", "bloom", "granite", "t5"])
def test_layers_multiplied_ahead_equal_layers_run_for_every_pair(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    tokens = subject.encode(plain.IDS)
    blocks = attention_blocks(subject, tokens)
    rests = behind_attention(subject, tokens, blocks)
    assert rests is not None
    key, query = (blocks[1].pattern.abs().sum(0) > 0).T.nonzero(as_tuple=True)
    ahead = entrance(rests[1], 10**6)
    assert ahead is not None
    expected = rests[1](blocks[1].attended[query] - blocks[1].pairs(query, key), query)
    torch.testing.assert_close(ahead.without(query, key), expected, atol=1e-6, rtol=1e-6)
    assert entrance(rests[1], 10) is None  # few pairs are cheaper one by one


def test_no_layer_is_multiplied_ahead_where_experts_or_a_second_norm_stand_between() -> None:
    for name in ("mixtral", "gemma2"):
        subject = pellucid.load(plain.tiny(name))
        tokens = subject.encode(plain.IDS)
        rests = behind_attention(subject, tokens, attention_blocks(subject, tokens))
        assert rests is not None
        assert entrance(rests[0], 10**6) is None


def test_a_long_prompt_is_scored_the_same_way_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, ids = pellucid.load(plain.tiny("llama")), [5 + 7 * i % 80 for i in range(24)]
    quick = value_zeroing(subject, ids, target=1).scores
    monkeypatch.setattr(module, "entrance", lambda *_: None)
    np.testing.assert_allclose(
        quick, value_zeroing(pellucid.load(plain.tiny("llama")), ids, target=1).scores, atol=1e-6
    )


def test_a_continuation_is_read_at_each_of_its_positions() -> None:
    subject, continuation = pellucid.load(plain.tiny("llama")), [9, 31, 14]
    target = pellucid.Target.continuation(continuation, each=True)
    found = value_zeroing(subject, plain.IDS, target=target).scores
    assert found.shape == (6, 3)
    for place in range(3):
        alone = value_zeroing(subject, [*plain.IDS, *continuation[:place]], target=1).scores
        np.testing.assert_allclose(found[:, place], alone[:6], atol=1e-6)
