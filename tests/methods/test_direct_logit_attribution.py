"""Direct logit attribution against the formula written out on GPT-2, and its sum on every kind of block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import SiteError, TargetError
from pellucid.core.targets import Target
from pellucid.methods.reading.direct_logit_attribution import direct_logit_attribution
from tests import plain

SHAPES = ["llama", "neox-parallel", "opt-post-norm", "bloom", "mixtral", "gemma2", "granite", "olmo2"]
SHAPES += ["bert-classifier", "modernbert-classifier", "albert-classifier", "t5", "bart"]


def by_hand() -> tuple[list[float], np.ndarray, np.ndarray]:
    """Embedding and sub-layers, heads [layer, head] and neurons [layer, neuron] of GPT-2, at the last position."""
    model, seen = plain.tiny("gpt2"), {}
    for layer, block in enumerate(model.transformer.h):
        for name, module in (("attn", block.attn.c_proj), ("mlp", block.mlp.c_proj)):

            def keep(
                _: object, inputs: tuple[torch.Tensor, ...], out: torch.Tensor, at: object = (layer, name)
            ) -> None:
                seen[at] = (inputs[0][0, -1], out[0, -1])

            module.register_forward_hook(keep)
    with torch.no_grad():
        states = model(input_ids=torch.tensor([plain.IDS]), output_hidden_states=True).hidden_states
        start = states[0][0, -1]
        last = start + sum(out for _, out in seen.values())
        spread = (last.var(unbiased=False) + model.transformer.ln_f.eps).sqrt()
        unembedding = model.lm_head.weight[plain.TARGET] - model.lm_head.weight[plain.CONTRAST]

        def logit(vector: torch.Tensor) -> float:
            return float((vector - vector.mean()) / spread * model.transformer.ln_f.weight @ unembedding)

        parts = [logit(start), *(logit(seen[layer, name][1]) for layer in (0, 1) for name in ("attn", "mlp"))]
        heads, neurons = np.zeros((2, 4)), np.zeros((2, 128))
        for layer, block in enumerate(model.transformer.h):
            z, weight = seen[layer, "attn"][0], block.attn.c_proj.weight
            heads[layer] = [logit(z[8 * h : 8 * h + 8] @ weight[8 * h : 8 * h + 8]) for h in range(4)]
            post, weight = seen[layer, "mlp"][0], block.mlp.c_proj.weight
            neurons[layer] = [logit(post[n] * weight[n]) for n in range(128)]
    return parts, heads, neurons


def test_equals_the_formula_written_out() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    for name, expected in zip(("sublayers", "heads", "neurons"), by_hand(), strict=True):
        found = direct_logit_attribution(subject, plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST, parts=name)
        np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    parts = direct_logit_attribution(subject, plain.IDS, target=plain.TARGET)
    assert parts.labels["part"] == ("embedding", "0.attn", "0.mlp", "1.attn", "1.mlp")


@pytest.mark.parametrize("name", SHAPES)
def test_effects_and_constants_sum_to_the_difference_of_logits(name: str) -> None:
    model = plain.tiny(name)
    contrast = 0 if "classifier" in name else 2
    found = direct_logit_attribution(pellucid.load(model), plain.IDS, target=1, contrast=contrast)
    start = (
        {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id]])} if name in ("t5", "bart") else {}
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS]), **start).logits[0]
    logits = logits if logits.ndim == 1 else logits[-1]
    evidence = found.evidence[0]
    assert found.scores.sum() + evidence.values["constants"] == pytest.approx(
        float(logits[1] - logits[contrast]), abs=1e-9
    )
    assert ("linearised" in evidence.summary) == (
        name in ("opt-post-norm", "bert-classifier", "albert-classifier", "bart")
    )


@pytest.mark.parametrize(("name", "parts"), [("llama", "heads"), ("gemma2", "heads"), ("bart", "heads"),
                                             ("gemma2", "neurons"), ("bert-classifier", "neurons")])  # fmt: skip
def test_smaller_parts_sum_to_their_sublayers(name: str, parts: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    small = direct_logit_attribution(subject, plain.IDS, target=1, parts=parts)
    assert small.evidence[0].values["residual"] < 1e-6
    whole = direct_logit_attribution(subject, plain.IDS, target=1)
    kind = "attn" if parts == "heads" else "mlp"
    written = sum(v for v, p in zip(whole.scores, whole.labels["part"], strict=True) if p.split(".")[-1] == kind)
    biases = small.evidence[0].values["biases of the parts"]
    assert small.scores.sum() + biases == pytest.approx(float(written), abs=1e-6)


def test_single_precision_keeps_the_sum() -> None:
    found = direct_logit_attribution(pellucid.load(plain.tiny("llama").float()), plain.IDS, target=1, contrast=2)
    assert found.evidence[0].values["residual"] < 1e-4


def test_an_edit_that_breaks_the_sum_is_told() -> None:
    edited = pellucid.load(plain.tiny("llama")).with_(pellucid.Edit("blocks.1.resid_pre", "scale", 2.0))
    assert direct_logit_attribution(edited, plain.IDS, target=1).evidence[0].ok is False


def test_what_has_no_exact_sum_is_refused() -> None:
    subject = pellucid.load(plain.tiny("mixtral"))
    with pytest.raises(TargetError, match="shares out logits"):
        direct_logit_attribution(subject, plain.IDS, target=Target(1, measure="prob"))
    with pytest.raises(SiteError, match="experts"):
        direct_logit_attribution(subject, plain.IDS, target=1, parts="neurons")
