"""The neuron view against queries and keys multiplied by hand, and against the model's own scores."""

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import pellucid
from pellucid.core.errors import InputError, SiteError
from pellucid.methods.attention.query_key_products import query_key_products
from tests import plain


def test_products_of_grouped_rotated_heads_by_hand() -> None:
    model = plain.tiny("llama")
    attention = model.model.layers[1].self_attn
    seen = {}
    handle = attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(x=kwargs["hidden_states"], turn=kwargs["position_embeddings"]),
        with_kwargs=True,
    )
    plain.logits(model, plain.IDS)
    handle.remove()
    width = attention.head_dim
    with torch.no_grad():
        q = attention.q_proj(seen["x"]).view(1, 6, -1, width).transpose(1, 2)
        k = attention.k_proj(seen["x"]).view(1, 6, -1, width).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *seen["turn"])
    expected = q[0, 3, 4] * k[0, 3 * k.shape[1] // q.shape[1]]
    found = query_key_products(pellucid.load(model), plain.IDS, target=plain.TARGET, layer=1, head=3, query=4)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-7)
    assert found.evidence[0].values["factor"] == pytest.approx(width**-0.5, rel=1e-5)
    assert found.evidence[0].values["residual"] < 1e-5


def test_what_is_not_there_is_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="no position 6"):
        query_key_products(subject, plain.IDS, query=6)
    with pytest.raises(SiteError, match="attention_views"):
        query_key_products(pellucid.load(plain.tiny("bloom")), plain.IDS)
