"""Attention knockout against masks written by hand, and on planted heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.engine.cone import score_edits_plain
from pellucid.engine.knockout import cut, score_cuts
from pellucid.engine.targets import resolve
from pellucid.methods.patching.attention_knockout import attention_knockout
from pellucid.models.edits import Edit
from pellucid.zoo import truth
from tests import plain


def cut_by_hand(model: Any, layers: list[int], receivers: list[int], keys: list[int]) -> float:
    """Return the target's probability in a GPT-2 whose attention is written out, with some edges left out."""
    with torch.no_grad():
        ids = torch.tensor(plain.IDS)
        x = model.transformer.wte(ids) + model.transformer.wpe(torch.arange(len(ids)))
        for number, block in enumerate(model.transformer.h):
            q, k, v = block.attn.c_attn(block.ln_1(x)).split(32, dim=-1)
            mixed = torch.zeros_like(x)
            for head in range(4):
                part = slice(8 * head, 8 * head + 8)
                for i in range(len(ids)):
                    seen = [j for j in range(i + 1) if not (number in layers and i in receivers and j in keys)]
                    if seen:
                        weights = (k[seen, part] @ q[i, part] / 8**0.5).softmax(0)
                        mixed[i, part] = weights @ v[seen, part]
            x = x + block.attn.c_proj(mixed)
            x = x + block.mlp(block.ln_2(x))
        return float(model.lm_head(model.transformer.ln_f(x))[-1].softmax(-1)[plain.TARGET])


def test_windows_equal_attention_by_hand() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    whole = cut_by_hand(model, [], [], [])
    for window, receivers in ((1, None), (2, None), (1, [2, 4])):
        found = attention_knockout(
            subject, plain.IDS, target=plain.TARGET, window=window, receivers=receivers, unit="token+special"
        )
        assert found.axes == ("layer", "unit")
        assert found.units is not None
        for layer in range(2):
            layers = [layer] if window == 1 else [max(0, layer - 1), layer]
            expected = [
                whole - cut_by_hand(model, layers, receivers or [5], list(range(*span))) for span in found.units.spans
            ]
            np.testing.assert_allclose(found.values[layer], expected, atol=1e-10)
        assert np.abs(found.values).max() > 1e-6
    assert np.all(found.values[:, 5] == 0)  # nobody among the receivers can see the last token


def test_a_receiver_without_edges_gets_nothing_from_attention() -> None:
    model = plain.tiny()
    whole = cut_by_hand(model, [], [], [])
    found = attention_knockout(pellucid.load(model), plain.IDS, target=plain.TARGET, unit=[(0, 6)], relative=True)
    expected = [(whole - cut_by_hand(model, [layer], [5], list(range(6)))) / whole for layer in range(2)]
    np.testing.assert_allclose(found.values[:, 0], expected, atol=1e-10)


def test_the_planted_edge_of_the_planted_layer_alone_carries_the_answer() -> None:
    """In `two-step`, one head of block 1 fetches the person's country; nothing else moves it."""
    subject = pellucid.load("zoo:truth/two-step")
    known = truth.answer("two-step")
    for prompt in known["prompts"][:5]:
        target = pellucid.Target(prompt["target"], measure="logit")
        person = 1 + int(np.argmax(prompt["truth"][:-1]))  # behind the start token
        every, planted, idle = (
            attention_knockout(subject, prompt["ids"], target=target, heads=heads).values for heads in (None, [0], [1])
        )
        assert np.unravel_index(np.abs(every).argmax(), every.shape) == (1, person)
        np.testing.assert_allclose(every, planted, atol=1e-5)
        np.testing.assert_allclose(idle, 0, atol=1e-5)
        assert every[1, person] > 4


@pytest.mark.parametrize("name", ["gptj", "bloom", "mistral-sliding", "gemma2", "t5", "bert-classifier"])
def test_other_families_cut_as_they_attend(name: str) -> None:
    """Cutting an edge equals a pattern whose other weights are scaled up to 1."""
    subject = pellucid.load(plain.tiny(name))
    found = attention_knockout(subject, plain.IDS, target=1)
    kind = "decoder.blocks.1.cross_attn.pattern" if name == "t5" else "blocks.1.attn.pattern"
    query = {"t5": 0, "bert-classifier": 0}.get(name, len(plain.IDS) - 1)

    def without(value: torch.Tensor, context: Any) -> torch.Tensor:
        kept = value.clone()
        kept[..., 4] = 0
        return kept / kept.sum(-1, keepdim=True)

    from pellucid.engine.cone import score_edits_plain
    from pellucid.engine.targets import resolve

    tokens = subject.encode(plain.IDS)
    readout = resolve(subject, tokens, pellucid.Target(1, measure="prob"))
    edit = pellucid.Edit(kind, without, where={"query": query})
    scores = score_edits_plain(subject, tokens, readout, [(), (edit,)])[:, 0]
    assert found.units is not None
    column = [span[0] for span in found.units.spans].index(4)
    assert found.values[1, column] == pytest.approx(scores[0] - scores[1], abs=1e-8)


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="positions that attend are 0 to 5"):
        attention_knockout(subject, plain.IDS, target=1, receivers=6)
    with pytest.raises(InputError, match="heads 0 to 3"):
        attention_knockout(subject, plain.IDS, target=1, heads=[4])


@pytest.mark.parametrize("name", ["gpt2", "neox-parallel", "gptj", "zoo:tiny-lm"])
def test_starting_at_the_first_cut_layer_equals_full_runs_and_saves_products(name: str) -> None:
    subject = pellucid.load(name if name.startswith("zoo:") else plain.tiny(name))
    tokens, counted = subject.encode(plain.IDS), list[int]()
    readout = resolve(subject, tokens, plain.TARGET, None)
    seen, layers = torch.ones(1, 6, dtype=torch.bool), range(subject.layers)
    sets: list[tuple[Edit, ...]] = [()]
    sets += [tuple(cut(f"blocks.{layer}.attn.pattern", seen, [5], [key], [0, 1])) for layer in layers for key in (1, 3)]
    score_cuts(subject, tokens, readout, sets)  # and the proof that runs once per model
    for module in subject.model.modules():
        if type(module) is torch.nn.Linear and module is not subject.model.get_output_embeddings():
            module.register_forward_hook(lambda own, args, _: counted.append(args[0].shape[0] * own.weight.numel()))
    saved, cost = score_cuts(subject, tokens, readout, sets), sum(counted)
    counted.clear()
    plainly = score_edits_plain(subject, tokens, readout, sets)
    np.testing.assert_allclose(saved, plainly, atol=1e-5 if name.startswith("zoo:") else 1e-10)
    if name.startswith("zoo:"):
        assert cost < 0.75 * sum(counted)
