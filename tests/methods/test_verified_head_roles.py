"""Verified head roles: planted heads are named, and scores and ablations equal counting and hooks by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.engine.role_inputs import in_order, needles, repeated
from pellucid.engine.token_losses import token_losses
from pellucid.methods.reading.verified_head_roles import verified_head_roles
from tests import plain


@pytest.mark.parametrize("name", ["induction", "gpt2-induction"])
def test_the_planted_heads_are_named_and_needed(name: str) -> None:
    found = verified_head_roles(pellucid.load(f"zoo:truth/{name}"))
    heads = [row[:3] for row in found.rows]
    assert heads == [("previous", 0, 0), ("induction", 1, 1), ("copying", 1, 1), ("retrieval", 1, 1)]
    checks = {check.name.split(": ")[1]: check for check in found.evidence}
    assert all(checks[role].ok for role, _, _ in heads)
    assert checks["duplicate"].ok is None, "no head does that"
    assert all(abs(checks[role].values["random"]) < 1e-3 for role, _, _ in heads), "idle heads change nothing"
    assert checks["induction"].values["effect"] > np.log(3)


@pytest.mark.slow
def test_tiny_lm_matches_with_heads_that_look_four_places_back() -> None:
    found = verified_head_roles(pellucid.load("zoo:tiny-lm"), samples=4)
    induction = {row[1:3]: row[4] for row in found.rows if row[0] == "induction"}
    assert induction == dict.fromkeys([(1, 0), (1, 1), (1, 2), (1, 3)], 4)
    assert (0, 1, 4) in {(row[1], row[2], row[4]) for row in found.rows if row[0] == "previous"}
    assert {c.name: c.ok for c in found.evidence}["role: previous"]


def test_shares_of_attention_and_ablation_by_hand() -> None:
    model: Any = plain.tiny("llama")
    subject = pellucid.load(model)
    found = verified_head_roles(subject, length=5, samples=2, threshold=0, most=1, reach=1, seed=3)
    texts = repeated(subject, 5, 2, np.random.default_rng(3))
    ids = torch.tensor([text.ids for text in texts])
    model.set_attn_implementation("eager")
    mixes: list[torch.Tensor] = []
    handles = [
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: mixes.append(args[0]))
        for block in model.model.layers
    ]
    with torch.no_grad():
        output = model(input_ids=ids, output_attentions=True)
    for handle in handles:
        handle.remove()
    attention = torch.stack(output.attentions)
    first = ids.shape[1] - 4
    expected = sum(attention[..., q, q - 4] for q in range(first, ids.shape[1])).mean(1) / 4
    row = next(row for row in found.rows if row[0] == "induction")
    assert row[3] == pytest.approx(float(expected.max()), abs=1e-6)
    assert divmod(int(expected.argmax()), expected.shape[1]) == row[1:3]

    layer, head, width = row[1], row[2], mixes[0].shape[-1] // expected.shape[1]
    here = slice(head * width, (head + 1) * width)

    def ablate(_: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = args[0].clone()
        changed[..., here] = mixes[layer][..., here].mean((0, 1))
        return (changed,)

    def loss() -> float:
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits.log_softmax(-1)
        return float(-log_probs[:, first - 1 : -1].gather(-1, ids[:, first:, None]).mean())

    before = loss()
    handle = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(ablate)
    after = loss()
    handle.remove()
    assert row[-1] == pytest.approx(after - before, abs=1e-6)
    assert np.mean([one.mean() for one in token_losses(subject, texts)]) == pytest.approx(before, abs=1e-6)


def test_a_needle_is_repeated_with_its_key() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    for text, at in needles(subject, 3, 20, 5, np.random.default_rng(0)):
        assert text.ids[at - 1 : at + 3] == text.ids[-4:]
        assert text.scored == (len(text.ids) - 3, len(text.ids) - 2, len(text.ids) - 1)


def test_lists_keep_words_of_one_token() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    pieces = in_order(subject, [("red", "blue", "qqqq", "green", "pink", "grey", "brown", "white")])
    assert [subject.tokenizer.decode(piece) for piece in pieces] == [
        " green pink grey brown white",
        "greenpinkgreybrownwhite",
    ]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CapabilityError, match="no causal language model"):
        verified_head_roles(pellucid.load(plain.tiny("bert-classifier")))
    with pytest.raises(InputError, match="one each"):
        verified_head_roles(pellucid.load("zoo:tiny-lm"), prompts=["Mary"], samples=1)
