"""Gradient x input against finite differences, per target token, and on a model linear in its embeddings."""

import numpy as np
import torch

import pellucid
from pellucid import Target
from pellucid.methods.attribution.gradient_x_input import gradient_x_input
from tests import plain


def test_equals_finite_differences_times_embeddings() -> None:
    model = plain.tiny()
    found = gradient_x_input(pellucid.load(model), plain.IDS, target=plain.TARGET)
    expected = (plain.gradient(model, plain.IDS) * plain.embeddings(model, plain.IDS)).sum(-1)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-9)


def test_each_row_of_the_matrix_is_one_target_alone() -> None:
    model = plain.tiny("llama")
    subject = pellucid.load(model)
    found = gradient_x_input(
        subject, plain.IDS, target=Target.continuation([17, 33, 60], each=True, measure="log_prob")
    )
    assert found.axes == ("unit", "target")
    for column in range(3):
        prompt = plain.IDS + [17, 33, 60][:column]
        vectors = plain.embeddings(model, prompt).requires_grad_()
        plain.from_embeddings(model, vectors).log_softmax(-1)[[17, 33, 60][column]].backward()
        expected = (vectors.grad * vectors).sum(-1)[: len(plain.IDS)].detach()
        # Llama normalises in float32 whatever its dtype, hence six digits.
        np.testing.assert_allclose(found.scores[:, column], expected.numpy(), atol=1e-6)
    summed = gradient_x_input(subject, plain.IDS, target=Target.continuation([17, 33, 60]))
    np.testing.assert_allclose(summed.scores, found.scores.sum(1), atol=1e-6)


def test_is_exact_where_the_model_is_linear() -> None:
    """A GPT-2 whose blocks add nothing and whose final norm is the identity has logits linear in the embeddings."""
    model = plain.tiny()
    for block in model.transformer.h:
        for part in (block.attn.c_proj, block.mlp.c_proj):
            part.weight.data.zero_()
            part.bias.data.zero_()
    model.transformer.ln_f = torch.nn.Identity()
    subject = pellucid.models.load.subject_of(model, None, name="linear", proved=False)
    last = plain.embeddings(model, plain.IDS)[-1]
    found = gradient_x_input(subject, plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(
        found.scores, [*[0.0] * 5, float(last @ model.lm_head.weight[plain.TARGET].detach())], atol=1e-12
    )
