"""Virtual weights against products written out, and the planted path of a constructed model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.reading.embedding_space import embedding_space
from pellucid.methods.reading.virtual_weights import virtual_weights
from tests import plain


def test_neurons_to_tokens_are_those_of_embedding_space() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    found = virtual_weights(subject, source="blocks.1.mlp", count=6)
    other = embedding_space(subject, layer=1, part="neurons", count=6)
    assert [row[2] for row in found.rows] == pytest.approx([row[2] for row in other.rows])


def test_neurons_to_neurons_by_hand() -> None:
    model = plain.tiny("gpt2")
    found = virtual_weights(pellucid.load(model), source="blocks.0.mlp", reader="blocks.1.mlp", count=5)
    one, two = model.transformer.h
    read = two.ln_2.weight[:, None] * two.mlp.c_fc.weight
    every = (one.mlp.c_proj.weight @ (read - read.mean(0))).detach()
    values, places = every.flatten().topk(5)
    assert [row[2] for row in found.rows] == pytest.approx(values.tolist(), rel=1e-5)
    i, j = divmod(int(places[0]), every.shape[1])
    assert found.rows[0][:2] == (f"neuron 0.{i}", f"neuron 1.{j}")
    assert found.evidence[0].values["root_mean_square"] == pytest.approx(float(every.pow(2).mean().sqrt()), rel=1e-5)


def test_through_a_feed_forward_layer_it_is_the_mean_jacobian() -> None:
    model = plain.tiny("gpt2")
    ids = [plain.IDS, [8, 3, 12]]
    directions = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = virtual_weights(
        pellucid.load(model), source=directions[:1].numpy(), reader=directions[1:].numpy(), through="blocks.0.mlp",
        prompts=ids, count=1,
    )  # fmt: skip
    block, seen = model.transformer.h[0], list[torch.Tensor]()
    handle = block.mlp.c_fc.register_forward_hook(lambda _, args, out: seen.append(out[0].detach()))
    for one in ids:
        plain.logits(model, one)
    handle.remove()
    before = torch.cat(seen)
    slope = (block.mlp.act(before + 1e-6) - block.mlp.act(before - 1e-6)).mean(0) / 2e-6
    first = directions[0] - directions[0].mean()
    expected = ((first * block.ln_2.weight) @ block.mlp.c_fc.weight * slope) @ block.mlp.c_proj.weight @ directions[1]
    assert found.rows[0][2] == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_planted_induction_head_turns_words_into_answers() -> None:
    subject = pellucid.load("zoo:truth/induction")
    rows = virtual_weights(subject, through="blocks.1.attn.1", count=9).rows
    assert all(source == to for source, to, _ in rows)
    assert len({source for source, _, _ in rows}) == 9
    np.testing.assert_allclose([value for _, _, value in rows], rows[0][2], rtol=1e-5)


def test_what_leads_nowhere_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="bottom up"):
        virtual_weights(subject, source="blocks.1.mlp", reader="blocks.1.mlp")
    with pytest.raises(InputError, match="is unknown"):
        virtual_weights(subject, through="blocks.one")
    with pytest.raises(InputError, match="takes `prompts`"):
        virtual_weights(subject, through="blocks.1.mlp")
    with pytest.raises(InputError, match="give directions"):
        virtual_weights(subject, source=np.zeros((2, 5)))
