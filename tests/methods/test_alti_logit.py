"""ALTI-Logit: the parts of the logit and their mixing against the formula written out, and the sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, TargetError
from pellucid.core.targets import Target
from pellucid.methods.vectors.alti_logit import alti_logit
from tests import plain
from tests.engine.test_transformed import plain_blocks
from tests.methods.test_alti import contributions

SHAPES = [
    "llama",
    "neox-parallel",
    "opt-post-norm",
    "bloom",
    "mixtral",
    "gemma2",
    "granite",
    "olmo2",
    "bert-classifier",
]
SHAPES += ["modernbert-classifier", "albert-classifier"]


def by_hand(feed_forward: bool) -> tuple[np.ndarray, float]:
    """The scores on GPT-2, whose blocks add up in one stream, and what biases and feed-forward layers keep."""
    model = plain.tiny("gpt2")
    blocks, norm = plain_blocks("gpt2"), model.transformer.ln_f
    last = blocks[-1].after[-1].detach()
    spread = (last.var(unbiased=False) + norm.eps).sqrt()
    unembedding = model.lm_head.weight[plain.TARGET].detach()

    def logit(vector: torch.Tensor) -> float:
        return float((vector - vector.mean()) / spread * norm.weight @ unembedding)

    with torch.no_grad():
        mixed = torch.eye(6, dtype=torch.float64)
        scores, kept = torch.zeros(6, dtype=torch.float64), float(norm.bias @ unembedding)
        scores[5] = logit(blocks[0].before[5])
        for block in blocks:
            kept += logit(block.bias)
            for j in range(6):
                scores += logit(block.vectors[:, 5, j].sum(0)) * mixed[j]
            mixed = contributions(block) @ mixed
            added = logit(block.after[5] - block.middle[5])
            if feed_forward:
                scores += added * mixed[5]
            else:
                kept += added
    return scores.numpy(), kept


@pytest.mark.parametrize("feed_forward", ["mixed", "apart"])
def test_equals_the_formula_written_out(feed_forward: str) -> None:
    model = plain.tiny("gpt2")
    expected, kept = by_hand(feed_forward == "mixed")
    found = alti_logit(pellucid.load(model), plain.IDS, target=plain.TARGET, feed_forward=feed_forward)
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    value = float(plain.logits(model, plain.IDS)[plain.TARGET])
    assert found.scores.sum() + kept == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_scores_and_constants_sum_to_the_logit_and_to_a_contrast(name: str) -> None:
    model = plain.tiny(name)
    found = alti_logit(pellucid.load(model), plain.IDS, target=1, contrast=2)
    values = found.evidence[0].values
    assert values["residual"] < 1e-5
    assert found.scores.sum() + values["constants"] == pytest.approx(values["value"], abs=1e-5)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS])).logits[0]
    logits = logits if logits.ndim == 1 else logits[-1]
    assert values["value"] == pytest.approx(float(logits[1] - logits[2]), abs=1e-6)


def test_a_contrast_is_the_difference_of_two_answers() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one, other = (alti_logit(subject, plain.IDS, target=i).scores for i in (1, 2))
    both = alti_logit(subject, plain.IDS, target=1, contrast=2).scores
    np.testing.assert_allclose(both, one - other, atol=1e-6)


def test_without_biases_nothing_is_left_over() -> None:
    found = alti_logit(pellucid.load(plain.tiny("llama")), plain.IDS, target=plain.TARGET)
    assert found.evidence[0].values["constants"] == pytest.approx(0, abs=1e-6)
    expected = float(plain.logits(plain.tiny("llama"), plain.IDS)[plain.TARGET])
    assert found.scores.sum() == pytest.approx(expected, abs=1e-6)


def test_refuses_what_has_no_sum() -> None:
    with pytest.raises(CapabilityError, match="use decompx"):
        alti_logit(pellucid.load(plain.tiny("t5")), plain.IDS, target=1)
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(TargetError, match="measure 'logit'"):
        alti_logit(subject, plain.IDS, target=Target(1, measure="log_prob"))
    with pytest.raises(TargetError, match="one is needed"):
        alti_logit(subject, plain.IDS, target=Target([1, 2], measure="logit"))
