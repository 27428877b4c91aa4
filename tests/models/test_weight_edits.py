"""Edits of weights: the view is edited, the original is not, and what is put back is the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, EditError, InputError
from pellucid.core.results import WeightEdit
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.weight_edits import apply_weights, changed_in_place, inspect_weights, revert_weights
from tests.state import changed, model_state
from tests.tiny import TINY

IDS = (11, 42, 7, 23, 64, 5)
NAMES = {
    "gpt2": "transformer.h.1.mlp.c_proj.weight",
    "llama": "model.layers.1.mlp.down_proj.weight",
    "t5": "decoder.block.1.layer.2.DenseReluDense.wo.weight",
    "bert-classifier": "bert.encoder.layer.1.output.dense.weight",
    "mixtral": "model.layers.1.self_attn.o_proj.weight",
}


def edit_of(subject: pellucid.Subject, name: str, seed: int = 0, scale: float = 0.3) -> WeightEdit:
    shape = dict(subject.model.named_parameters())[name].shape
    generator = np.random.default_rng(seed)
    left = scale * generator.normal(size=(shape[0], 1)).astype(np.float32)
    return WeightEdit(
        factors={name: (left, generator.normal(size=(1, shape[1])).astype(np.float32))},
        weights_hash=subject.weights_hash(),
    )


def logits(subject: pellucid.Subject) -> torch.Tensor:
    decoder = (3, 9) if subject.kind == "encoder-decoder" else ()
    with torch.no_grad():
        return forward(subject, [Row(IDS, decoder_ids=decoder)]).logits


@pytest.mark.parametrize("shape", NAMES)
def test_a_view_is_edited_and_the_original_is_not(shape: str) -> None:
    subject, name = pellucid.load(TINY[shape]()), NAMES[shape]
    before, plain = model_state(subject.model), logits(subject)
    edit = edit_of(subject, name)
    view = subject.with_(edit)
    with torch.no_grad():  # the same change made by hand on a second model
        other = TINY[shape]()
        dict(other.named_parameters())[name].add_(torch.as_tensor(edit.delta(name)))
    torch.testing.assert_close(logits(view), logits(pellucid.load(other)), rtol=0, atol=0)
    assert not torch.allclose(logits(view), plain)
    assert torch.equal(logits(subject), plain)
    assert changed(before, model_state(subject.model)) == []
    shared = {id(p) for p in subject.model.parameters()}
    own = [name for name, p in view.model.named_parameters() if id(p) not in shared]
    assert own == [name]
    assert not {id(m) for m in view.model.modules()} & {id(m) for m in subject.model.modules()}


def test_views_know_their_weights() -> None:
    subject = pellucid.load(TINY["gpt2"]())
    small = np.zeros((128, 32), np.float32)
    small[77, 5] = 1e-3  # a single weight, which the model's fingerprint need not sample
    first = WeightEdit(deltas={NAMES["gpt2"]: small}, weights_hash=subject.weights_hash())
    view = subject.with_(first)
    assert view.weights_hash() != subject.weights_hash()
    assert view.with_(edit_of(view, NAMES["gpt2"])).weights_hash() != view.weights_hash()
    provenance = pellucid.run("gradient_x_input", view, IDS, target=1).provenance
    assert provenance.weights_hash == view.weights_hash()
    assert NAMES["gpt2"] in provenance.edits[0]
    assert "1 edits" in repr(view)
    assert view.without_edits().weights_hash() == view.weights_hash()


def test_edits_stack_and_mix_with_edits_of_activations() -> None:
    subject, name = pellucid.load(TINY["llama"]()), NAMES["llama"]
    one, two = edit_of(subject, name, 1), edit_of(subject, "model.layers.0.mlp.down_proj.weight", 2)
    three = edit_of(subject, name, 3)
    zero = pellucid.Edit("blocks.1.attn.out", "zero")
    together = subject.with_(one, zero, two, three)
    apart = subject.with_(one).with_(two).with_(zero, three)
    torch.testing.assert_close(logits(together), logits(apart), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        other = TINY["llama"]()
        for edit in (one, two, three):
            for key in edit.names:
                dict(other.named_parameters())[key].add_(torch.as_tensor(edit.delta(key)))
    expected = logits(pellucid.load(other).with_(zero))
    torch.testing.assert_close(logits(together), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_in_place_comes_back_bit_for_bit_also_after_an_error(dtype: torch.dtype) -> None:
    subject, name = pellucid.load(TINY["gpt2"]().to(dtype)), NAMES["gpt2"]
    before, plain, state = model_state(subject.model), logits(subject), subject.weights_state()
    edit = edit_of(subject, name)
    with changed_in_place(subject, edit) as on:
        assert on is subject
        assert not torch.equal(logits(subject), plain)
        assert subject.weights_state() != state
        torch.testing.assert_close(logits(subject), logits(pellucid.load(subject.model)), rtol=0, atol=0)
    assert changed(before, model_state(subject.model)) == ["versions"]  # so caches see the change
    assert torch.equal(logits(subject), plain)
    with pytest.raises(ZeroDivisionError), changed_in_place(subject, edit, edit_of(subject, name, 5)):
        raise ZeroDivisionError
    assert changed(before, model_state(subject.model)) == ["versions"]  # so caches see the change
    originals = apply_weights(subject, edit)
    revert_weights(subject, originals)
    assert changed(before, model_state(subject.model)) == ["versions"]  # so caches see the change


def test_bfloat16_is_rounded_once() -> None:
    subject, name = pellucid.load(TINY["gpt2"]().to(torch.bfloat16)), NAMES["gpt2"]
    one, two = edit_of(subject, name, 1, 0.01), edit_of(subject, name, 2, 0.01)
    old = dict(subject.model.named_parameters())[name].float()
    new = dict(subject.with_(one, two).model.named_parameters())[name]
    summed = old + torch.as_tensor(one.delta(name)) + torch.as_tensor(two.delta(name))
    assert new.dtype == torch.bfloat16
    assert torch.equal(new, summed.to(torch.bfloat16))


def test_rank_and_norm() -> None:
    subject, name = pellucid.load(TINY["gpt2"]()), NAMES["gpt2"]
    one, two = edit_of(subject, name, 1), edit_of(subject, name, 2)
    other = "transformer.h.0.mlp.c_proj.weight"
    full = WeightEdit(deltas={other: np.eye(128, 32, dtype=np.float32)})
    table = inspect_weights(subject, one, two, full)
    assert table.columns[3:] == ("rank", "norm", "weight norm", "ratio")
    weight = dict(subject.model.named_parameters())[name].detach().numpy()
    norm = float(np.linalg.norm((one.delta(name) + two.delta(name)).astype(np.float64)))
    assert table.rows[0][:4] == (name, 128, 32, 2)
    assert table.rows[0][4:] == pytest.approx((norm, np.linalg.norm(weight), norm / np.linalg.norm(weight)))
    assert table.rows[1][3] == 32
    assert inspect_weights(subject, one).rows[0][3] == 1


def test_saved_as_factors_and_opened(tmp_path: Path) -> None:
    subject, name = pellucid.load(TINY["gpt2"]()), NAMES["gpt2"]
    edit = edit_of(subject, name)
    folder = edit.save(tmp_path / "edit")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 32 * 128 * 4 / 4  # two vectors, not the matrix
    opened: Any = pellucid.open(folder)
    assert torch.equal(logits(subject.with_(opened)), logits(subject.with_(edit)))
    assert NAMES["gpt2"] in opened.html()
    dense = WeightEdit(deltas={name: edit.delta(name)}, weights_hash=edit.weights_hash)
    assert torch.equal(
        logits(subject.with_(pellucid.open(dense.save(tmp_path / "dense")))), logits(subject.with_(edit))
    )


def refused(subject: pellucid.Subject, edit: WeightEdit, error: type[Exception], match: str) -> None:
    before = model_state(subject.model)
    with pytest.raises(error, match=match):
        subject.with_(edit)
    with pytest.raises(error, match=match), changed_in_place(subject, edit):
        pass
    assert changed(before, model_state(subject.model)) == []


def test_what_is_refused() -> None:
    subject, name = pellucid.load(TINY["gpt2"]()), NAMES["gpt2"]
    good = np.ones((128, 32), np.float32)
    refused(subject, WeightEdit(deltas={name: good}, weights_hash="of another"), EditError, "of another.*make it again")
    refused(subject, WeightEdit(deltas={name: good.T}), EditError, "own layout")
    refused(subject, WeightEdit(deltas={name: good * np.nan}), EditError, "NaN")
    refused(subject, WeightEdit(deltas={name + "s": good}), EditError, "mean.*c_proj")
    table = subject.model.get_input_embeddings().weight
    tied = WeightEdit(deltas={"transformer.wte.weight": np.zeros(tuple(table.shape), np.float32)})
    refused(subject, tied, EditError, "tied to 'lm_head.weight'")
    mixed = WeightEdit(deltas={"transformer.h.0.mlp.c_proj.weight": good, name: good * np.inf})
    refused(subject, mixed, EditError, "NaN or infinite")
    with pytest.raises(InputError, match="twice"):
        WeightEdit(deltas={name: good}, factors={name: (good, good.T)})
    with pytest.raises(InputError, match="rank"):
        WeightEdit(factors={name: (good, good)})


def test_offloaded_and_quantised_weights_are_refused() -> None:
    subject, name = pellucid.load(TINY["gpt2"]()), NAMES["gpt2"]
    edit = WeightEdit(deltas={name: np.ones((128, 32), np.float32)})
    module = subject.model.transformer.h[1].mlp.c_proj
    own = module.weight
    module.weight = torch.nn.Parameter(torch.empty(128, 32, device="meta"))
    with pytest.raises(CapabilityError, match="offloaded"):
        subject.with_(edit)
    module.weight = torch.nn.Parameter(torch.ones(128, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(CapabilityError, match="quantised"):
        subject.with_(edit)
    module.weight = own
    assert subject.with_(edit)
