"""Grad-SAM against Hugging Face's own patterns with retained gradients, and finite differences of single weights."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import InputError, TargetError
from pellucid.engine.patterns import gradients_at_patterns, pattern_sites
from pellucid.engine.question import ask
from pellucid.methods.attention.grad_sam import grad_sam
from tests import plain


@pytest.mark.parametrize("name", ["gpt2", "bert-classifier"])
def test_equals_the_formula(name: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    output = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True)
    for pattern in output.attentions:
        pattern.retain_grad()
    logits = output.logits[0, -1] if name == "gpt2" else output.logits[0]
    logits[1].backward()
    total = torch.stack([(p * p.grad.clamp(min=0))[0].sum(0) for p in output.attentions]).sum(0)
    heads = sum(p.shape[1] for p in output.attentions)
    expected = (total / heads).sum(0) / 6
    model.set_attn_implementation("sdpa")
    model.zero_grad(set_to_none=True)
    subject = pellucid.load(model)
    found = grad_sam(subject, plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, expected.detach().numpy(), atol=1e-9)
    assert found.scores.max() > 0
    parts = [grad_sam(subject, plain.IDS, target=1, layers=[layer]).scores for layer in range(len(output.attentions))]
    np.testing.assert_allclose(np.mean(parts, 0), found.scores, atol=1e-12)


def test_the_gradient_of_a_weight_is_what_moving_it_does() -> None:
    subject = pellucid.load(plain.tiny())
    question = ask(subject, plain.IDS, target=plain.TARGET)
    sites = pattern_sites(subject)
    _, found = gradients_at_patterns(question, sites)
    for site, head, query, key in (("blocks.0.attn.pattern", 1, 3, 2), ("blocks.1.attn.pattern", 0, 5, 4)):
        where = {"head": head, "query": query, "key": key}
        up, down = (
            float(ask(subject.with_(Edit(site, "add", step, where)), plain.IDS, target=plain.TARGET).score(
                np.ones((1, 6), dtype=bool), "delete")[0, 0])
            for step in (1e-5, -1e-5)
        )  # fmt: skip
        slope = (up - down) / 2e-5
        assert abs(slope) > 1e-7
        assert float(found[site][1][0, head, query, key]) == pytest.approx(slope, abs=1e-8)


def test_each_target_is_a_column_and_a_continuation_counts_its_own_queries() -> None:
    subject = pellucid.load(plain.tiny())
    target = Target.continuation([17, 33], each=True, measure="logit")
    both = grad_sam(subject, plain.IDS, target=target)
    assert both.values.shape == (6, 2)
    longer = grad_sam(subject, [*plain.IDS, 17], target=33)
    np.testing.assert_allclose(both.values[:, 1], longer.scores[:6], atol=1e-12)


def test_refuses_what_it_cannot_do() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match=r"\[7\].*0 to 1"):
        grad_sam(subject, plain.IDS, target=1, layers=[7])
    with pytest.raises(TargetError, match="contrast single tokens"):
        grad_sam(subject, plain.IDS, target=Target.continuation([1, 2], contrast=[3, 4]))
