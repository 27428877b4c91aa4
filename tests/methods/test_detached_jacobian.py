"""The detached Jacobian gives the output back exactly, and is the Jacobian of the model with its gates held still."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.relevance.detached_jacobian import detached_jacobian
from tests import plain
from tests.tiny import TINY


def test_gives_the_logit_of_a_model_without_constants() -> None:
    model = plain.tiny("llama")
    found = detached_jacobian(pellucid.load(model), plain.IDS, target=plain.TARGET)
    # Llama normalises in float32 whatever its dtype, hence six digits.
    assert found.scores.sum() == pytest.approx(float(plain.logits(model, plain.IDS)[plain.TARGET]), abs=1e-6)
    assert found.evidence[0].values["constants"] == 0


def test_is_the_jacobian_with_gates_held_still() -> None:
    model = plain.tiny("llama")
    rotate = model.model.rotary_emb
    end = plain.embeddings(model, plain.IDS).requires_grad_()
    length, x = len(plain.IDS), end

    def norm(x: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt().detach() * module.weight

    cos, sin = (t[0] for t in rotate(x, torch.arange(length)[None]))
    for layer in model.model.layers:
        normed, own = norm(x, layer.input_layernorm), layer.self_attn
        q, k, v = (p(normed).view(length, -1, 8) for p in (own.q_proj, own.k_proj, own.v_proj))
        q, k = (t * cos[:, None] + torch.cat([-t[..., 4:], t[..., :4]], -1) * sin[:, None] for t in (q, k))
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / 8**0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1).detach(), v).reshape(length, 32)
        x = x + own.o_proj(mixed)
        normed = norm(x, layer.post_attention_layernorm)
        gate = torch.nn.functional.silu(layer.mlp.gate_proj(normed)).detach()
        x = x + layer.mlp.down_proj(gate * layer.mlp.up_proj(normed))
    norm(x, model.model.norm)[-1].matmul(model.lm_head.weight[plain.TARGET]).backward()
    expected = (end.grad * end).sum(-1).detach().numpy()
    found = detached_jacobian(pellucid.load(model), plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "bert-classifier", "gptj"])
def test_constants_take_the_rest(name: str) -> None:
    found = detached_jacobian(pellucid.load(TINY[name]().double()), plain.IDS, target=1)
    values = found.evidence[0].values
    assert found.evidence[0].ok
    assert found.scores.sum() + values["constants"] == pytest.approx(values["start"], abs=1e-10)
    assert values["constants"] != 0
