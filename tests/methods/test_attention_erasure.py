"""Attention erasure against the native model with erased weights, and a planted key that decides."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import TargetError
from pellucid.engine.capture import capture
from pellucid.methods.attention.attention_erasure import attention_erasure
from tests import plain


def without(model: Any, subject: pellucid.Subject, gone: list[int]) -> torch.Tensor:
    """Return the native logits of a GPT-2 whose last position, in the last layer, attends to some keys no more."""
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.v"]
    pattern, value = (capture(subject, plain.IDS, sites)[site].clone() for site in sites)
    for head in range(4):
        pattern[head, 5, gone] = 0
        pattern[head, 5] /= pattern[head, 5].sum()
    mixed = torch.einsum("hqk,khd->qhd", pattern, value).reshape(1, 6, -1)
    hook = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(lambda module, args: (mixed,))
    found = plain.logits(model, plain.IDS)
    hook.remove()
    return found


def sharp() -> Any:
    """A tiny GPT-2 whose last attention weighs so much that erasing it changes decisions."""
    model = plain.tiny()
    with torch.no_grad():
        model.transformer.h[1].attn.c_proj.weight *= 400
    return model


def test_equals_the_native_model_with_erased_weights() -> None:
    model = sharp()
    subject = pellucid.load(model)
    found = attention_erasure(subject, plain.IDS, layers=[1])
    own = plain.logits(model, plain.IDS)
    logits = [without(model, subject, [key]) for key in range(6)]
    expected = [jensenshannon(own.softmax(-1).numpy(), other.softmax(-1).numpy()) ** 2 for other in logits]
    np.testing.assert_allclose(found.values[0], expected, atol=1e-9)
    weights = capture(subject, plain.IDS, ["blocks.1.attn.pattern"])["blocks.1.attn.pattern"][:, 5].mean(0)
    top = int(weights.argmax())
    more = expected[top] - np.mean([e for i, e in enumerate(expected) if i != top])
    assert found.evidence[0].values["more"] == pytest.approx(more, abs=1e-9)
    order = weights.argsort(descending=True).tolist()
    decision = int(own.argmax())
    count = next((c for c in range(1, 6) if int(without(model, subject, order[:c]).argmax()) != decision), 6)
    assert found.evidence[1].values["attention"] == pytest.approx(count / 6)
    assert count < 6


def test_one_key_that_decides_is_found_by_every_order() -> None:
    """All values but those of position 2 are zero: without its weight, nothing is left of the layer's work."""
    model = sharp()
    plain_subject = pellucid.load(model)
    subject = plain_subject.with_(Edit("blocks.1.attn.v", "zero", where={"position": (0, 1, 3, 4, 5)}))
    found = attention_erasure(subject, plain.IDS, layers=[1], rounds=8)
    assert found.values[0].argmax() == 2
    # The weights of the others may grow or shrink what 2 gives, but only erasing 2 takes it all away.
    shares = found.evidence[1].values
    assert shares["gradient"] == pytest.approx(1 / 6)
    assert shares["attention x gradient"] == pytest.approx(1 / 6)
    assert shares["random"] > 1 / 6


def test_words_are_erased_whole_and_several_targets_refused() -> None:
    subject = pellucid.load(plain.tiny("bert-classifier"))
    found = attention_erasure(subject, plain.IDS, target=1, unit=[(0, 2), (2, 5)])
    assert found.values.shape == (2, 2)
    assert (found.values > 0).all()
    with pytest.raises(TargetError, match="2 tokens"):
        attention_erasure(pellucid.load(plain.tiny()), plain.IDS, target=Target.continuation([17, 33]))
