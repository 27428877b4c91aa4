"""ROME writes v at k exactly, with a change of rank one that is the smallest in the norm of C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

import pellucid
from pellucid.core.errors import CapabilityError, EditError, InputError
from pellucid.core.facts import Fact
from pellucid.core.results import WeightEdit
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import wordings
from pellucid.engine.value_optimisation import Settings, optimise_values
from pellucid.methods.editing.rome import _written, rome
from tests.editing import FACTS, PREFIXES, TEXTS, editable, keys_of, matrix_of, values_of
from tests.state import changed, model_state
from tests.tiny import TINY

QUICK: dict[str, Any] = {"steps": 4, "texts": TEXTS, "neutral": TEXTS[:3], "prefixes": PREFIXES, "rate": 0.2}


def mean_key(subject: pellucid.Subject, fact: Fact, layer: int) -> torch.Tensor:
    """Return the mean key of the subject's last token over the wordings."""
    rows = wordings(subject, [fact], PREFIXES)[0].rows
    return torch.stack([keys_of(subject, layer, row.ids)[row.position] for row in rows]).mean(0)


def out_of(subject: pellucid.Subject, layer: int, key: torch.Tensor) -> torch.Tensor:
    """Return W k + bias, in whatever way the module multiplies."""
    with torch.no_grad():
        found: torch.Tensor = matrix_of(subject, layer)(key[None, None].to(subject.model.dtype))[0, 0]
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox-parallel", "gemma2"])
def test_rank_one_and_the_value_stands_at_the_key(kind: str) -> None:
    subject, fact = editable(kind), FACTS[2]
    before = model_state(subject.model)
    edit = rome(subject, fact, layer=1, token="subject", **QUICK)
    assert changed(before, model_state(subject.model)) == []
    (name,) = edit.names
    assert edit.factors[name][0].shape[1] == 1
    key = mean_key(subject, fact, 1)
    # The value that was optimised: what stands there without prefix, plus the vector found by the same loop.
    site = "blocks.1.mlp.out_raw" if kind == "gemma2" else "blocks.1.mlp.out"
    written = wordings(subject, [fact], PREFIXES)
    vector = optimise_values(subject, [site], written, Settings(4, 0.2, 0.0625, 0.5, 4.0)).vectors[site][0]
    value = values_of(subject, 1, written[0].rows[0].ids)[written[0].rows[0].position] + vector
    torch.testing.assert_close(out_of(subject.with_(edit), 1, key), value, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(out_of(subject, 1, key), value, atol=1e-3)
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert account["W' k = v"].ok
    assert account["value optimisation"].values["last"] < account["value optimisation"].values["first"]
    assert {"value optimisation", "key covariance", "side effects"} <= set(account)


def test_the_change_is_the_smallest_that_does_it() -> None:
    """No other change that maps the key as far has a smaller norm under C: min |D|_C with D k = r is r u^T / (u k)."""
    subject = editable("llama")
    edit = rome(subject, FACTS[0], layer=1, token="subject", **QUICK)
    delta = torch.as_tensor(edit.delta(edit.names[0])).double()
    keys = torch.cat([keys_of(subject, 1, subject.encode(text).ids)[1:] for text in TEXTS])
    second = keys.T @ keys / len(keys)
    second = torch.as_tensor(ledoit_wolf(keys.numpy(), assume_centered=True)[0])
    key = mean_key(subject, FACTS[0], 1)
    direction = torch.linalg.solve(second, key)
    expected = torch.outer(delta @ key, direction) / (direction @ key)
    torch.testing.assert_close(delta, expected, rtol=1e-5, atol=1e-8)


def test_the_original_form_divides_by_the_key_without_prefix() -> None:
    subject, fact = editable("llama"), FACTS[0]
    edit = rome(subject, fact, layer=1, token="subject", form="original", **QUICK)
    row = wordings(subject, [fact])[0].rows[0]
    bare = keys_of(subject, 1, row.ids)[row.position]
    corrected = rome(subject, fact, layer=1, token="subject", **QUICK)
    view, other = subject.with_(edit), subject.with_(corrected)
    moved = out_of(view, 1, bare) - values_of(subject, 1, row.ids)[row.position]
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert account["W' k = v"].values["worst"] < 1e-5
    assert float(moved.norm()) > 0
    assert not torch.allclose(out_of(view, 1, bare), out_of(other, 1, bare), atol=1e-4)
    alone = rome(subject, fact, layer=1, token="subject", form="original", **{**QUICK, "prefixes": ()})
    same = rome(subject, fact, layer=1, token="subject", **{**QUICK, "prefixes": ()})
    np.testing.assert_allclose(alone.delta(alone.names[0]), same.delta(same.names[0]), rtol=1e-9)


def test_edits_at_orthogonal_keys_commute() -> None:
    """Two rank-one writes whose keys are orthogonal in C^-1 leave each other alone, in either order."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))[0]
    at = down_projections(editable("llama"), [1])[0]
    second, wanted = torch.eye(48, dtype=torch.float64), torch.randn(2, 32, generator=generator, dtype=torch.float64)
    for keys, commute in ((basis[:2], True), (torch.stack([basis[0], basis[0] + basis[1]]), False)):
        left, right = _written(at, keys, keys, wanted, second)
        back, turned = _written(at, keys.flip(0), keys.flip(0), wanted.flip(0), second)
        new = at.matrix + left.T @ right
        assert torch.allclose(new, at.matrix + back.T @ turned, atol=1e-10) == commute
        torch.testing.assert_close(new @ keys[1], wanted[1])
        assert torch.allclose(new @ keys[0], wanted[0]) == commute


def test_many_facts_saved_opened_and_stacked(tmp_path: Path) -> None:
    subject = editable("gpt2")
    edit = rome(subject, [vars(fact) for fact in FACTS], layer=1, token="subject", **QUICK)
    assert edit.title == "ROME: 3 facts"
    assert edit.factors[edit.names[0]][0].shape == (128, 3)
    opened = pellucid.open(edit.save(tmp_path / "edit"))
    assert isinstance(opened, WeightEdit)
    np.testing.assert_array_equal(opened.delta(edit.names[0]), edit.delta(edit.names[0]))
    assert opened.evidence == edit.evidence
    view = subject.with_(opened)
    second = rome(view, Fact("{} lives in", "Dora", "Oslo"), layer=0, token="subject", **QUICK)
    assert second.provenance.edits[0].startswith("rome")
    stacked = view.with_(second)
    assert len(stacked.weight_edits) == 2
    with pytest.raises(EditError, match="make it again"):
        subject.with_(second)


def test_where_tracing_finds_it_and_bfloat16() -> None:
    subject = editable("llama", torch.bfloat16)
    edit = rome(subject, FACTS[0], **{**QUICK, "prefixes": (), "steps": 2})
    traced = {evidence.name: evidence for evidence in edit.evidence}["causal tracing"]
    assert len(traced.values) == 6
    best = max(traced.values, key=lambda name: traced.values[name])
    assert f".{best.rsplit(' ', 1)[1]}." in edit.names[0]
    assert edit.factors[edit.names[0]][0].dtype == np.float32
    again = rome(subject, FACTS[0], **{**QUICK, "prefixes": (), "steps": 2})
    np.testing.assert_array_equal(again.delta(again.names[0]), edit.delta(edit.names[0]))


def test_what_is_refused() -> None:
    subject = editable("llama")
    with pytest.raises(InputError, match="lacks its subject 'Bob'"):
        Fact("Alice lives in", "Bob", "Rome")
    with pytest.raises(InputError, match="empty target"):
        Fact("{} lives in", "Bob", " ")
    with pytest.raises(InputError, match="no field 'obejct'"):
        rome(subject, {"prompt": "{} is", "subject": "Bob", "obejct": "x"})
    with pytest.raises(InputError, match="Fact"):
        rome(subject, [])
    with pytest.raises(CapabilityError, match="experts"):
        rome(editable("mixtral", torch.float32), FACTS[0], **QUICK)
    with pytest.raises(CapabilityError, match="decoders"):
        rome(pellucid.load(TINY["bert-classifier"]()), FACTS[0], **QUICK)
    with pytest.raises(CapabilityError, match="tokenizer"):
        rome(pellucid.load(TINY["gpt2"]()), FACTS[0], **QUICK)
    with pytest.raises(pellucid.PellucidError, match="layers 0 to 2"):
        rome(subject, FACTS[0], layer=7, **QUICK)
    before = model_state(subject.model)
    broken = subject.with_(pellucid.Edit("blocks.2.mlp.out", "scale", float("nan")))
    with pytest.raises(EditError, match="NaN"):
        rome(broken, FACTS[0], layer=1, token="subject", **QUICK)
    assert changed(before, model_state(subject.model)) == []
