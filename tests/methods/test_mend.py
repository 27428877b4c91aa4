"""MEND: the editor by its formula, gradients through borrowed weights, and facts that it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.core.results import Learned
from pellucid.engine.borrowed_weights import borrowed_weights
from pellucid.engine.capture import capture
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_cases import EditCase
from pellucid.engine.edit_factors import edit_factors, rows_of
from pellucid.engine.gradient_editor import edited_matrices, new_editor, write
from pellucid.evaluate.edit_data import tiny_lm_cases
from pellucid.evaluate.edit_efficacy import edit_efficacy
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(10, neighbours=2)
NAME = "model.layers.2.mlp.down_proj.weight"


def test_factors_make_the_gradient_of_the_weight() -> None:
    [matrix] = down_projections(SUBJECT, [2])
    [row] = rows_of(SUBJECT, [CASES[0].fact])
    [[found]] = edit_factors(SUBJECT, [row], [matrix])
    weight = SUBJECT.model.get_parameter(NAME)
    logits = SUBJECT.model(torch.tensor([list(row.ids)])).logits[0, list(row.places)]
    [plain] = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.tensor(row.target)), [weight])
    gap = (found.gradients.T @ found.keys - plain).abs().max() / plain.abs().max()
    assert float(gap) < 1e-3


def test_borrowed_weights_carry_gradients_and_come_back() -> None:
    before, weight = model_state(SUBJECT.model), SUBJECT.model.get_parameter(NAME)
    scale = torch.tensor(0.5, requires_grad=True)
    with borrowed_weights(SUBJECT, {NAME: weight.detach() * scale}):
        [slope] = torch.autograd.grad(SUBJECT.model(torch.tensor([[5, 6, 7]])).logits.sum(), [scale])
    assert float(slope.abs()) > 0
    with pytest.raises(ZeroDivisionError), borrowed_weights(SUBJECT, {NAME: weight.detach() * 0}):
        raise ZeroDivisionError
    assert SUBJECT.model.get_parameter(NAME) is weight
    assert changed(before, model_state(SUBJECT.model)) == []


def test_a_new_editor_gives_steps_along_the_normalised_gradient() -> None:
    matrices = down_projections(SUBJECT, [2])
    factors = edit_factors(SUBJECT, rows_of(SUBJECT, [case.fact for case in CASES[:3]]), matrices)
    editor = new_editor(factors, 8, 0.1, torch.Generator().manual_seed(0))
    [change] = edited_matrices(editor, factors[:1], matrices)
    every = [np.concatenate([row[0][part].numpy() for row in factors]) for part in (0, 1)]
    keys, gradients = (part.numpy() for part in factors[0][0])
    keys = (keys - every[0].mean(0)) / every[0].std(ddof=1)
    shares = np.linalg.norm(gradients, axis=1, keepdims=True)
    wanted = -0.1 * (gradients / every[1].std(ddof=1) * shares / shares.max()).T @ keys
    np.testing.assert_allclose(change.numpy(), wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def editor() -> Any:
    return pellucid.run("mend", SUBJECT, CASES[:8], steps=25, per_step=2)


def test_a_trained_editor_writes_facts_that_it_never_saw(editor: Any) -> None:
    before = model_state(SUBJECT.model)
    gains = []
    for case in CASES[8:]:
        edited = SUBJECT.with_(write(SUBJECT, editor, case.fact))
        gains.append(edit_efficacy(SUBJECT, edited, [case], tokens=0).values["magnitude_change"])
    assert changed(before, model_state(SUBJECT.model)) == []
    assert np.mean(gains) > 0.5, "p(new) - p(true) begins near -1"
    assert len(editor.evidence[0].curves["loss"]) == 25


def test_an_editor_is_for_its_own_weights(editor: Any) -> None:
    other = SUBJECT.with_(pellucid.run("laser", SUBJECT, NAME, keep=0.5))
    with pytest.raises(EditError, match="learned for the weights"):
        write(other, editor, CASES[0].fact)
    with pytest.raises(EditError, match="lens"):
        write(SUBJECT, Learned(apply="lens"), CASES[0].fact)
    with pytest.raises(InputError, match="a dozen"):
        pellucid.run("mend", SUBJECT, CASES[:1])


def test_a_saved_editor_writes_the_same(editor: Any, tmp_path: Any) -> None:
    opened = pellucid.open(editor.save(tmp_path / "editor"))
    found = (write(SUBJECT, one, CASES[0].fact).delta(NAME) for one in (editor, opened))
    np.testing.assert_array_equal(*found)


def test_what_a_capture_sees_is_the_borrowed_weight() -> None:
    with borrowed_weights(SUBJECT, {NAME: torch.zeros_like(SUBJECT.model.get_parameter(NAME))}):
        found = capture(SUBJECT, [5, 6, 7], ["blocks.2.mlp.out"])["blocks.2.mlp.out"]
    assert float(found.abs().max()) == 0


def test_facts_of_one_edit_are_trained_on_their_sum() -> None:
    pair = [EditCase(case.fact) for case in CASES[:2]]
    found = pellucid.run("mend", SUBJECT, pair, steps=1, per_step=1, together=2, locality=0, layers=2, hidden=4)
    matrices = down_projections(SUBJECT, [2])
    rows = rows_of(SUBJECT, [case.fact for case in pair])
    factors = edit_factors(SUBJECT, rows, matrices)
    start = new_editor(factors, 4, 1e-2, torch.Generator().manual_seed(0))
    alone = [edited_matrices(start, [own], matrices)[0] for own in factors]
    weight = SUBJECT.model.get_parameter(NAME)
    with torch.no_grad(), borrowed_weights(SUBJECT, {NAME: weight + alone[0] + alone[1]}):
        logits = [SUBJECT.model(torch.tensor([list(row.ids)])).logits[0, list(row.places)] for row in rows]
    plain = [
        float(torch.nn.functional.cross_entropy(own, torch.tensor(row.target)))
        for own, row in zip(logits, rows, strict=True)
    ]
    assert found.evidence[0].curves["loss"][0] == pytest.approx(np.mean(plain), rel=1e-4)
