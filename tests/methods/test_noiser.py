"""Noiser against its limit for small noise, and on inputs that cannot matter."""

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.methods.attribution.noiser import noiser
from tests import plain


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "bert-classifier"])
def test_small_noise_measures_the_gradient(name: str) -> None:
    model = plain.tiny(name)
    target = 1
    if name == "gpt2":
        gradient = plain.gradient(model, plain.IDS, target)
    else:

        def value(vectors: object) -> float:
            return float(model(inputs_embeds=vectors[None]).logits[0, target].detach())  # type: ignore[index]

        gradient = plain.finite_differences(value, plain.embeddings(model, plain.IDS))
    size = plain.embeddings(model, plain.IDS).square().mean(-1).sqrt()
    expected = (1e-3 * size / 3**0.5 * gradient.norm(dim=-1)).numpy()
    found = noiser(pellucid.load(model), plain.IDS, target=target, noise=1e-3, samples=400)
    np.testing.assert_allclose(found.scores, expected, rtol=0.15)
    assert found.std_error is not None
    assert (np.abs(found.scores - expected) < 4 * found.std_error).all()


def test_drop_is_the_mean_change() -> None:
    """Where the target is the hidden sum of a linear readout nothing is lost on average; a probability loses."""
    subject = pellucid.load(plain.tiny())
    small = noiser(subject, plain.IDS, target=plain.TARGET, noise=1e-3, samples=64, of="drop")
    assert small.std_error is not None
    assert (np.abs(small.scores) < 4.5 * small.std_error + 1e-9).all()
    change = noiser(subject, plain.IDS, target=plain.TARGET, noise=1.0, samples=16, of="change")
    drop = noiser(subject, plain.IDS, target=plain.TARGET, noise=1.0, samples=16, of="drop")
    assert (np.abs(drop.scores) <= change.scores + 1e-12).all()


def test_a_blocked_position_bears_any_noise() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    cut = subject.with_(*[pellucid.Edit(f"blocks.{layer}.attn.scores", "set", -1e9, {"key": 2}) for layer in (0, 1)])
    found = noiser(cut, plain.IDS, target=plain.TARGET)
    assert found.scores[2] < 1e-9
    assert np.delete(found.scores, 2).min() > 1e-6


def test_every_target_token_comes_from_the_same_passes() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    each = noiser(subject, plain.IDS, target=Target.continuation([17, 20], each=True), of="drop")
    summed = noiser(subject, plain.IDS, target=Target.continuation([17, 20]), of="drop")
    np.testing.assert_allclose(each.scores.sum(1), summed.scores, atol=1e-9)
    assert each.provenance.forwards == summed.provenance.forwards
