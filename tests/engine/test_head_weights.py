"""Weights of heads and neurons against captured activations on many families."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.engine.capture import capture
from pellucid.engine.head_weights import head_weights, largest_pairs, neuron_weights, unembedding
from tests import plain

FAMILIES = ["gpt2", "llama-tied-bias", "llama", "neox-parallel", "falcon-new", "gemma2", "phi3", "bloom"]


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_give_the_model_s_own_queries_values_and_outputs(name: str) -> None:
    """Differences between positions hold no biases: they must be what the folded matrices make of the stream."""
    subject = pellucid.load(plain.tiny(name))
    weights = head_weights(subject, 1)
    parts = ["resid_pre", "attn.q", "attn.k", "attn.v", "attn.z", "mlp.post"]
    raw = [p for p in ("attn.out_raw", "mlp.out_raw") if p in subject.need_layout().stacks[""].taps]
    outs = [*raw] if raw else ["attn.out", "mlp.out"]
    found = capture(subject, plain.IDS, [f"blocks.1.{part}" for part in [*parts, *outs]])
    value = {key.split(".", 2)[2]: v for key, v in found.items()}
    stream = value["resid_pre"]
    centred = name in ("gpt2", "neox-parallel", "falcon-new", "bloom")
    spread = (stream - stream.mean(-1, keepdim=True) * centred).square().mean(-1, keepdim=True)
    normed = stream / (spread + 1e-5).sqrt()
    for part, maps in (("attn.q", weights.query), ("attn.k", weights.key), ("attn.v", weights.value)):
        mine = torch.einsum("pd,hdw->phw", normed, maps)
        theirs = value[part].repeat_interleave(len(maps) // value[part].shape[1], 1)
        torch.testing.assert_close(mine - mine[:1], theirs - theirs[:1], atol=2e-4, rtol=2e-3)
    mixed = torch.einsum("phw,hwd->pd", value["attn.z"], weights.output)
    torch.testing.assert_close(mixed - mixed[:1], value[outs[0]] - value[outs[0]][:1], atol=1e-8, rtol=0)
    written = value["mlp.post"] @ neuron_weights(subject, 1)
    torch.testing.assert_close(written - written[:1], value[outs[1]] - value[outs[1]][:1], atol=1e-8, rtol=0)


def test_the_unembedding_reads_the_last_stream() -> None:
    for name, centred in (("gpt2", True), ("llama-tied-bias", False)):
        model = plain.tiny(name)
        subject = pellucid.load(model)
        last = f"blocks.{subject.layers - 1}.resid_post"
        stream = capture(subject, plain.IDS, [last])[last]
        spread = (stream - stream.mean(-1, keepdim=True) * centred).square().mean(-1, keepdim=True)
        logits = model(input_ids=torch.tensor([plain.IDS])).logits[0].detach()
        mine = stream / (spread + 1e-5).sqrt() @ unembedding(subject).T
        torch.testing.assert_close(mine - mine[:1], logits - logits[:1], atol=2e-4, rtol=2e-3)


def test_largest_pairs_are_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.engine.head_weights.ROWS_AT_ONCE", 1)
    left, right = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in (50, 400))
    whole = left @ right.T
    found = largest_pairs(left, right, 7)
    assert [value for _, _, value in found] == pytest.approx(whole.flatten().topk(7).values.tolist())
    assert all(whole[i, j] == pytest.approx(value) for i, j, value in found)
