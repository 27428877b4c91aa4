"""Information loss where the optimum is known: the identity, a scaled copy, and what a causal model cannot see."""

import math

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attribution.information_loss import information_loss
from tests import plain

CONSTANT = 0.5 * math.log(2 * math.pi * math.e)


@pytest.mark.slow
def test_the_identity_has_its_closed_form() -> None:
    """Where Phi = x + positions, sigma^2 = trade * var(Phi) / 2 for every token."""
    model = plain.tiny("gpt2")
    with torch.no_grad():
        positions = model.transformer.wpe(torch.arange(6))
        variance = float((plain.embeddings(model, plain.IDS) + positions).var())
    expected = 0.5 * math.log(0.2 * variance / 2) + CONSTANT
    found = information_loss(
        pellucid.load(model), plain.IDS, site="blocks.0.resid_pre", trade=0.2, samples=16, steps=120
    )
    np.testing.assert_allclose(found.scores, expected, atol=0.1)
    assert found.evidence[0].ok


@pytest.mark.slow
def test_a_word_three_times_as_large_bears_a_third_of_the_noise() -> None:
    subject = pellucid.load(plain.tiny("gpt2")).with_(
        pellucid.Edit("blocks.0.resid_pre", "scale", 3.0, {"position": 2})
    )
    found = information_loss(subject, plain.IDS, site="blocks.0.resid_pre", samples=16, steps=120)
    others = np.delete(found.scores, 2).mean()
    assert others - found.scores[2] == pytest.approx(math.log(3), abs=0.1)


def test_words_after_the_place_that_is_read_are_lost() -> None:
    """Nothing stops their noise, so it grows with every step; Adam moves log sigma by its rate."""
    found = information_loss(pellucid.load(plain.tiny("llama")), plain.IDS, position=2, steps=40)
    assert (found.scores[3:] > found.scores[:3].max() + 0.5).all()
    spread = plain.embeddings(plain.tiny("llama"), plain.IDS).std()
    expected = math.log(0.1 * float(spread)) + 40 * 0.1 + CONSTANT
    np.testing.assert_allclose(found.scores[3:], expected, atol=0.01)


def test_units_take_the_mean_of_their_tokens() -> None:
    subject = pellucid.load(plain.tiny())
    tokens = information_loss(subject, plain.IDS, steps=10, seed=3)
    units = information_loss(subject, plain.IDS, steps=10, seed=3, unit=[(0, 2), (2, 6)])
    np.testing.assert_allclose(units.scores, [tokens.scores[:2].mean(), tokens.scores[2:].mean()], atol=1e-6)
    assert tokens.provenance.backwards == 40


def test_a_position_outside_the_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="position 9"):
        information_loss(pellucid.load(plain.tiny()), plain.IDS, position=9)
