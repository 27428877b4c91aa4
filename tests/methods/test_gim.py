"""GIM: the three repairs, each against the plain gradient that it becomes where it has nothing to do."""

import numpy as np
import torch

import pellucid
from pellucid.methods.relevance.gim import gim
from tests import plain


def by_hand(model: torch.nn.Module, temperature: float) -> np.ndarray:
    """The authors' recipe on a plain GPT-2: queries and keys a quarter, values half, norms frozen, softer softmax."""
    end = plain.embeddings(model, plain.IDS).requires_grad_()
    body, length = model.transformer, len(plain.IDS)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)

    def norm(x: torch.Tensor, module: torch.nn.LayerNorm) -> torch.Tensor:
        spread = (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / spread * module.weight + module.bias

    def part(x: torch.Tensor, share: float) -> torch.Tensor:
        return x * share + (x * (1 - share)).detach()

    x = end + body.wpe.weight[:length].detach()
    for block in body.h:
        q, k, v = block.attn.c_attn(norm(x, block.ln_1)).split(32, -1)
        q, k, v = (t.view(length, 4, 8).transpose(0, 1) for t in (q, k, v))
        scores = part(q, 0.25) @ part(k, 0.25).transpose(1, 2) / 8**0.5
        scores = scores.masked_fill(hidden, -torch.inf)
        plainly, softer = scores.softmax(-1), (scores / temperature).softmax(-1)
        pattern = plainly.detach() + temperature * (softer - softer.detach())
        mixed = (pattern.detach() @ part(v, 0.5)) + (pattern - pattern.detach()) @ v.detach()
        x = x + block.attn.c_proj(mixed.transpose(0, 1).reshape(length, 32))
        x = x + block.mlp(norm(x, block.ln_2))
    norm(x, body.ln_f)[-1].matmul(model.lm_head.weight[plain.TARGET]).backward()
    return (end.grad * end).sum(-1).detach().numpy()


def test_equals_the_recipe_on_a_plain_gpt2() -> None:
    model = plain.tiny()
    for temperature in (1.0, 2.0, 3.0):
        found = gim(pellucid.load(model), plain.IDS, target=plain.TARGET, temperature=temperature)
        np.testing.assert_allclose(found.scores, by_hand(model, temperature), atol=1e-10)


def test_the_temperature_matters() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one, two = (gim(subject, plain.IDS, target=plain.TARGET, temperature=t).scores for t in (1.0, 2.0))
    assert np.abs(one - two).max() > 1e-4
