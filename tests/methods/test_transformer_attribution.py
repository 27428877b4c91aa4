"""Transformer attribution against the papers' sums over Hugging Face's own patterns, and the relevance of a pattern."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.errors import TargetError
from pellucid.engine.question import ask
from pellucid.engine.relevance import relevance
from pellucid.engine.rules import Rules
from pellucid.methods.relevance.transformer_attribution import transformer_attribution
from tests import plain


def weighted(pattern: torch.Tensor) -> torch.Tensor:
    return (pattern * pattern.grad)[0].clamp(min=0).mean(0).detach()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equals_the_product_over_layers(name: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    output = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True)
    for pattern in output.attentions:
        pattern.retain_grad()
    output.logits[0, -1, plain.TARGET].backward()
    total = torch.eye(6, dtype=torch.float64)
    for pattern in output.attentions:
        total = (torch.eye(6) + weighted(pattern)) @ total
    model.set_attn_implementation("sdpa")
    model.zero_grad(set_to_none=True)
    found = transformer_attribution(pellucid.load(model), plain.IDS, target=plain.TARGET, weight="attention")
    np.testing.assert_allclose(found.scores, (total - torch.eye(6))[-1].numpy(), atol=1e-7)
    assert found.scores.max() > 0


def test_equals_the_sums_for_cross_attention() -> None:
    model = plain.tiny("t5")
    model.set_attn_implementation("eager")
    start = torch.tensor([[0, 17]])
    output = model(input_ids=torch.tensor([plain.IDS]), decoder_input_ids=start, output_attentions=True)
    groups = output.encoder_attentions, output.decoder_attentions, output.cross_attentions
    for pattern in (p for group in groups for p in group):
        pattern.retain_grad()
    output.logits[0, 1, plain.CONTRAST].backward()
    encoder, own = torch.eye(6, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    cross = torch.zeros(2, 6, dtype=torch.float64)
    for pattern in groups[0]:
        encoder = encoder + weighted(pattern) @ encoder

    def scaled(total: torch.Tensor) -> torch.Tensor:
        beyond = total - torch.eye(len(total))
        return torch.nan_to_num(beyond / beyond.sum(1, keepdim=True)) + torch.eye(len(total))

    for self_pattern, cross_pattern in zip(groups[1], groups[2], strict=True):
        own, cross = own + weighted(self_pattern) @ own, cross + weighted(self_pattern) @ cross
        cross = cross + scaled(own).T @ weighted(cross_pattern) @ scaled(encoder)
    model.set_attn_implementation("sdpa")
    model.zero_grad(set_to_none=True)
    found = transformer_attribution(
        pellucid.load(model), plain.IDS, target=Target.continuation([17, plain.CONTRAST], each=True, measure="logit"),
        weight="attention",
    )  # fmt: skip
    np.testing.assert_allclose(found.scores[:, 1], cross[1].numpy(), atol=1e-9)
    assert found.scores[:, 1].max() > 0


def test_a_pattern_gets_half_of_its_heads_relevance() -> None:
    question = ask(pellucid.load(plain.tiny("llama")), plain.IDS, target=plain.TARGET)
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.z"]
    found = relevance(question, Rules("alpha_beta", alpha=1.0), sites).sites
    pattern, z = ((value * gradient[0]) for value, gradient in (found[site][0] for site in sites))
    np.testing.assert_allclose(pattern.sum((1, 2)).numpy(), z.sum((0, 2)).numpy() / 2, atol=1e-10)
    assert z.abs().max() > 1e-3


def test_is_never_negative_and_follows_the_target() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one, other = (transformer_attribution(subject, plain.IDS, target=t).scores for t in (plain.TARGET, plain.CONTRAST))
    assert (one >= 0).all()
    assert one.max() > 0
    assert np.abs(one - other).max() > 1e-4
    with pytest.raises(TargetError, match="contrast single"):
        transformer_attribution(subject, plain.IDS, target=Target([5, 6], [7, 8]))
