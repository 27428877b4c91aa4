"""Attention views against Hugging Face's own attention matrices, and the choice of layers and heads."""

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attention.attention_views import attention_views
from pellucid.models import forward
from tests import plain


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_equals_hugging_faces_patterns(name: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    model.set_attn_implementation("eager" if name == "bloom" else "sdpa")
    found = attention_views(pellucid.load(model), plain.IDS, target=plain.TARGET)
    assert found.labels["head"][5] == "1.1"
    np.testing.assert_allclose(found.scores, torch.cat(patterns, 1)[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.scores.sum(-1), 1, atol=1e-6)


def test_weights_are_computed_in_the_layers_asked_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(plain.tiny("llama"))
    everything = attention_views(subject, plain.IDS, target=plain.TARGET)
    asked: list[str] = []
    real = forward.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        asked.extend(kwargs.get("capture", ()))
        return real(*args, **kwargs)

    monkeypatch.setattr("pellucid.engine.capture.forward", watching)
    found = attention_views(subject, plain.IDS, target=plain.TARGET, layers=-1, heads=[0, -1])
    assert asked == ["blocks.1.attn.pattern"]
    assert found.labels["head"] == ("1.0", "1.3")
    np.testing.assert_array_equal(found.scores, everything.scores[[4, 7]])


def test_each_head_is_drawn_as_a_grid() -> None:
    found = attention_views(pellucid.load(plain.tiny("llama")), plain.IDS, target=plain.TARGET)
    assert found.html().count("<table") >= 8


def test_what_is_not_there_is_refused() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    with pytest.raises(InputError, match="no layer 2; the model has layers 0 to 1"):
        attention_views(subject, plain.IDS, layers=2)
    with pytest.raises(InputError, match="no head 4; the model has heads 0 to 3"):
        attention_views(subject, plain.IDS, heads=4)
