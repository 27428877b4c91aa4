"""Feed-forward updates: by hand from a model's own weights, sums, and planted neurons."""

from __future__ import annotations

import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, TargetError
from pellucid.engine.targets import name_of
from pellucid.methods.reading.feed_forward_updates import feed_forward_updates
from pellucid.zoo import truth
from tests import plain


def test_effects_activations_and_tokens_by_hand() -> None:
    model = plain.tiny()
    kept: dict[str, torch.Tensor] = {}
    block, last = model.transformer.h[1], model.transformer.ln_f
    handles = [
        block.mlp.c_proj.register_forward_pre_hook(lambda m, args: kept.update(m=args[0][0, -1].detach())),
        last.register_forward_pre_hook(lambda m, args: kept.update(x=args[0][0, -1].detach())),
    ]
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    subject = pellucid.load(model)
    found = feed_forward_updates(subject, plain.IDS, target=plain.TARGET, count=128)
    divisor = (kept["x"].var(correction=0) + last.eps).sqrt()
    for layer, neuron, activation, weight, effect, tokens in found.rows[128::17]:
        assert layer == 1
        value = block.mlp.c_proj.weight[neuron].detach()
        update = kept["m"][neuron] * value
        logits = model.lm_head.weight.detach() @ ((update - update.mean()) / divisor * last.weight.detach())
        assert activation == pytest.approx(float(kept["m"][neuron]), abs=1e-9)
        assert weight == pytest.approx(float(update.norm()), abs=1e-9)
        assert effect == pytest.approx(float(logits[plain.TARGET]), abs=1e-9)
        assert tokens.split(", ")[0] == name_of(subject, int(logits.argmax()))
    assert found.evidence[0].ok
    assert found.evidence[1].values["listed"] == pytest.approx(found.evidence[1].values["all"], abs=1e-9)
    effects = [abs(row[4]) for row in found.rows[:128]]
    assert effects == sorted(effects, reverse=True)


def test_the_planted_neuron_says_the_answer() -> None:
    known = truth.answer("two-step")
    subject, prompt = pellucid.load("zoo:truth/two-step"), known["prompts"][1]
    roles = {(n["layer"], n["neuron"]): n["role"] for n in known["neurons"]}
    found = feed_forward_updates(subject, prompt["ids"], target=prompt["target"], count=1, tokens=1)
    layer, neuron, _, _, effect, tokens = found.rows[-1]
    assert roles[layer, neuron].endswith(f"-> {tokens}")
    assert effect == pytest.approx(10, abs=0.01)


def test_what_has_no_exact_sum_is_refused() -> None:
    with pytest.raises(TargetError, match="feed_forward_updates"):
        feed_forward_updates(pellucid.load(plain.tiny()), plain.IDS, target=pellucid.Target(1, measure="prob"))
    with pytest.raises(CapabilityError, match="pre-norm"):
        feed_forward_updates(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
