"""Patchscopes against a hidden state put in by hand, and the configurations whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError, TargetError
from pellucid.core.targets import Target
from pellucid.methods.reading.logit_lens import logit_lens
from pellucid.methods.reading.patchscopes import patchscopes
from tests import plain
from tests.state import changed, model_state

INTO = [3, 81, 9, 50]


def by_hand(layer: int, position: int, target_layer: int, place: int, length: int) -> tuple[float, list[int]]:
    """The log-probability of a token behind the target prompt of GPT-2, and the greedy text."""
    model = plain.tiny("gpt2")
    kept: list[torch.Tensor] = []
    handle = model.transformer.h[layer].register_forward_hook(lambda _, __, out: kept.append(out[0, position]))
    plain.logits(model, plain.IDS)
    handle.remove()

    def put(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, place] = kept[0]
        return out

    model.transformer.h[target_layer].register_forward_hook(put)
    first, said = plain.logits(model, INTO).log_softmax(-1), []
    for _ in range(length):
        said.append(int(plain.logits(model, [*INTO, *said]).argmax()))
    return float(first[plain.TARGET]), said


def test_equals_a_hidden_state_put_in_by_hand() -> None:
    model = plain.tiny("gpt2")
    before = model_state(model)
    subject = pellucid.load(model)
    found = patchscopes(subject, plain.IDS, target=plain.TARGET, into=INTO, place=2, positions=[1, -1], length=3)
    assert found.words is not None
    for layer in (0, 1):
        for column, position in enumerate((1, 5)):
            expected, said = by_hand(layer, position, layer, 2, 3)
            assert found.scores[layer, column] == pytest.approx(expected, abs=1e-9)
            assert found.words[2 * layer + column] == "".join(f"⟨{token}⟩" for token in said)
    up = patchscopes(subject, plain.IDS, target=plain.TARGET, into=INTO, target_layer=0)
    assert up.scores[1, 0] == pytest.approx(by_hand(1, 5, 0, 3, 1)[0], abs=1e-9)
    assert changed(before, model_state(model)) == []


@pytest.mark.parametrize("name", ["llama", "neox-parallel", "opt-post-norm", "gemma2", "mixtral"])
def test_the_prompt_itself_at_the_same_layer_is_the_model(name: str) -> None:
    model = plain.tiny(name)
    subject = pellucid.load(model)
    found = patchscopes(subject, plain.IDS, target=1, configuration="next_token", positions=[-1, 2])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([plain.IDS])).logits[0]
    np.testing.assert_allclose(
        found.scores, np.tile(logits.log_softmax(-1)[[5, 2], 1], (len(found.scores), 1)), atol=1e-9
    )
    assert found.evidence[0].values["agreement"] == 1.0
    lens = patchscopes(subject, plain.IDS, target=1, configuration="next_token", target_layer=-1)
    np.testing.assert_allclose(lens.scores, logit_lens(subject, plain.IDS, target=1, positions=-1).scores, atol=1e-9)


def test_a_continuation_is_scored_and_none_is_the_prediction_behind_the_prompt() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    both = patchscopes(subject, plain.IDS, target=Target.continuation([3, 4]), into=INTO).scores
    first = patchscopes(subject, plain.IDS, target=3, into=INTO).scores
    assert (both < first).all()
    found = patchscopes(subject, plain.IDS, into=INTO)
    assert found.target == repr(f"⟨{int(plain.logits(subject.model, plain.IDS).argmax())}⟩")


def test_published_prompts_on_a_model_that_reads_text() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    text = "If you visit Ankara, you are in"
    for configuration in ("identity", "description"):
        found = patchscopes(subject, text, configuration=configuration, length=2)
        assert found.scores.shape == (6, 1)
        assert "Turkey" in found.target
        assert found.words is not None
        assert all(found.words)
    # What the last layer writes is the prediction itself, in whatever prompt it stands.
    found = patchscopes(subject, text, positions=[-1])
    assert found.words[-1] == " Turkey"
    assert found.scores[-1, 0] > -1
    again = patchscopes(subject, text, target=" Turkey")
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(CapabilityError, match="without a tokenizer"):
        patchscopes(subject, plain.IDS, target=1)
    with pytest.raises(CapabilityError, match="load a decoder"):
        patchscopes(pellucid.load(plain.tiny("t5")), plain.IDS, target=1)
    with pytest.raises(InputError, match="layers 0 to 1"):
        patchscopes(subject, plain.IDS, target=1, into=INTO, target_layer=2)
    with pytest.raises(InputError, match="0 to 3"):
        patchscopes(subject, plain.IDS, target=1, into=INTO, place=4)
    with pytest.raises(TargetError, match="0 to 99"):
        patchscopes(subject, plain.IDS, target=10_000)
