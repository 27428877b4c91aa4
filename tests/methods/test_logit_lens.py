"""The logit lens against norm and unembedding written out, and against the model behind the last block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError, PellucidError, SiteError, TargetError
from pellucid.core.results import Learned
from pellucid.core.targets import Target
from pellucid.methods.reading.logit_lens import logit_lens
from tests import plain

SHAPES = ["gpt2", "llama", "neox-parallel", "opt-post-norm", "gemma2", "granite", "mixtral", "bert-classifier"]
SHAPES += ["albert-classifier", "t5", "bart"]


def by_hand(target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probability of a token and the best token behind every block of GPT-2: [layer, position] each."""
    model = plain.tiny("gpt2")
    with torch.no_grad():
        states = model(input_ids=torch.tensor([plain.IDS]), output_hidden_states=True).hidden_states
        inner = [model.transformer.ln_f(state[0]) for state in states[1:-1]]  # the last comes normed
        logits = torch.stack([model.lm_head(state) for state in (*inner, states[-1][0])])
    return logits.log_softmax(-1)[..., target], logits.argmax(-1)


def test_equals_the_formula_written_out() -> None:
    expected, best = by_hand(plain.TARGET)
    found = logit_lens(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    assert found.words == tuple(f"⟨{int(token)}⟩" for token in best.flatten())
    some = logit_lens(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=plain.TARGET, positions=[-1, 2])
    np.testing.assert_allclose(some.scores, expected[:, [5, 2]], atol=1e-10)
    prob = logit_lens(pellucid.load(plain.tiny("gpt2")), plain.IDS, target=Target(plain.TARGET, measure="prob"))
    np.testing.assert_allclose(prob.scores, expected.exp(), atol=1e-10)


@pytest.mark.parametrize("name", SHAPES)
def test_behind_the_last_block_it_is_the_model(name: str) -> None:
    model = plain.tiny(name)
    found = logit_lens(pellucid.load(model), plain.IDS, target=1, contrast=2, measure="logit")
    assert found.evidence[0].ok
    assert found.evidence[0].values["gap"] < 1e-9
    start = (
        {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id]])} if name in ("t5", "bart") else {}
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS]), **start).logits[0]
    if logits.ndim == 1:
        assert found.scores[-1, 0] == pytest.approx(float(logits[1] - logits[2]), abs=1e-9)
    else:
        np.testing.assert_allclose(found.scores[-1], logits[:, 1] - logits[:, 2], atol=1e-9)


def test_places_of_the_stream_follow_each_other() -> None:
    """What enters a block is what left the one before it; behind attention alone it is neither."""
    subject = pellucid.load(plain.tiny("llama"))
    before, middle, after = (
        logit_lens(subject, plain.IDS, target=3, site=site).scores for site in ("resid_pre", "resid_mid", "resid_post")
    )
    np.testing.assert_allclose(before[1:], after[:-1], atol=1e-12)
    assert np.abs(middle - after).max() > 1e-3
    assert np.abs(middle - before).max() > 1e-3


def test_a_lens_moves_the_stream_first() -> None:
    """The map to nothing plus a bias makes every cell of a layer say the same."""
    model = plain.tiny("llama")
    size, bias = 32, np.linspace(-1, 1, 32)
    tensors = {"matrices": np.stack([-np.eye(size), np.zeros((size, size))]), "biases": np.stack([bias, 0 * bias])}
    lens = Learned(title="A lens", tensors=tensors, apply="affine_lens", site="resid_post")
    found = logit_lens(pellucid.load(model), plain.IDS, target=plain.TARGET, lens=lens)
    with torch.no_grad():
        said = model.lm_head(model.model.norm(torch.as_tensor(bias))).log_softmax(-1)[plain.TARGET]
    np.testing.assert_allclose(found.scores[0], float(said), atol=1e-10)
    plainly = logit_lens(pellucid.load(model), plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores[1], plainly.scores[1], atol=1e-12)
    short = Learned(tensors={"matrices": tensors["matrices"][:1]}, apply="affine_lens", site="resid_post")
    with pytest.raises(InputError, match="2 layers"):
        logit_lens(pellucid.load(model), plain.IDS, target=1, lens=short)
    with pytest.raises(InputError, match="leave site out"):
        logit_lens(pellucid.load(model), plain.IDS, target=1, lens=lens, site="resid_pre")


def test_what_cannot_be_read_is_refused() -> None:
    subject = pellucid.load(plain.tiny("neox-parallel"))
    with pytest.raises(SiteError, match="resid_pre or resid_post"):
        logit_lens(subject, plain.IDS, target=1, site="resid_mid")
    with pytest.raises(SiteError, match="no place of"):
        logit_lens(subject, plain.IDS, target=1, site="attn.z")
    with pytest.raises(InputError, match="0 to 5"):
        logit_lens(subject, plain.IDS, target=1, positions=6)
    with pytest.raises(TargetError, match="one is needed"):
        logit_lens(subject, plain.IDS, target=[1, 2])
    with pytest.raises(PellucidError, match="head"):
        logit_lens(pellucid.load(plain.tiny("bert")), plain.IDS)


def test_an_edit_behind_the_blocks_is_told() -> None:
    edited = pellucid.load(plain.tiny("llama")).with_(pellucid.Edit("final_norm", "scale", 0.5))
    evidence = logit_lens(edited, plain.IDS, target=1).evidence[0]
    assert evidence.ok is False
    assert "an edit" in evidence.summary
