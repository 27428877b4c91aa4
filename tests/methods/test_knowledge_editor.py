"""KnowledgeEditor: the gate by its formula and its rank, no change from a shut gate, and facts never trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.core.facts import Fact
from pellucid.core.results import Learned
from pellucid.engine.borrowed_weights import borrowed_weights
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_factors import rows_of
from pellucid.engine.edit_losses import losses_under, new_weights, next_log_probs
from pellucid.engine.hyper_editor import Gate, gated_change, hyper_write, requests
from pellucid.evaluate.edit_data import tiny_lm_cases
from pellucid.evaluate.edit_efficacy import edit_efficacy
from tests.state import changed, model_state

SUBJECT = pellucid.load("zoo:tiny-lm")
CASES = tiny_lm_cases(10, neighbours=2)
NAME = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def editor() -> Any:
    before = model_state(SUBJECT.model)
    found = pellucid.run("knowledge_editor", SUBJECT, CASES[:8], steps=25, per_step=2)
    assert changed(before, model_state(SUBJECT.model)) == []
    return found


def gate(size: int, neurons: int) -> Gate:
    return Gate(*(torch.randn(count) for count in (neurons, neurons, size, size, 1)))


def test_a_change_is_the_gated_and_shifted_gradient() -> None:
    one, gradient = gate(4, 6), torch.randn(4, 6)
    alpha, beta, gamma, delta, eta = (part.numpy() for part in one)
    plain = np.zeros((4, 6))
    for i in range(4):
        for j in range(6):
            scaled = gamma[i] * 6 * softmax(alpha)[j] * gradient[i, j] / np.linalg.norm(gradient)
            plain[i, j] = -expit(eta[0]) * 3.0 * (scaled + delta[i] * softmax(beta)[j])
    np.testing.assert_allclose(gated_change(one, gradient, 3.0).numpy(), plain, atol=1e-5)


def test_shift_and_gate_have_rank_one_and_a_shut_gate_changes_nothing() -> None:
    one, gradient = gate(5, 7), torch.randn(5, 7)
    shift = gated_change(one, torch.zeros(5, 7), 1.0)
    assert int(torch.linalg.matrix_rank(shift)) == 1
    alone = gated_change(one._replace(delta=torch.zeros(5)), gradient, 1.0)
    assert int(torch.linalg.matrix_rank(alone / gradient)) == 1
    assert int(torch.linalg.matrix_rank(alone)) == 5, "it gates a gradient of full rank"
    shut = gated_change(one._replace(eta=torch.tensor([float("-inf")])), gradient, 1.0)
    assert not shut.any()


def test_an_untrained_editor_steps_along_the_plain_gradient(editor: Any) -> None:
    heads = {name: 0 * part for name, part in editor.tensors.items() if name.endswith("heads.0.weight")}
    size, neurons = SUBJECT.model.get_parameter(NAME).shape
    even = np.concatenate([np.zeros(2 * neurons), np.ones(size), np.zeros(size), [0.0]]).astype(np.float32)
    same = replace(editor, tensors={**editor.tensors, **heads, "heads.0.bias": even},
                   settings={**editor.settings, "layers": [2]})  # fmt: skip
    same = replace(same, tensors={name: part for name, part in same.tensors.items() if not name.startswith("heads.1")})
    found = hyper_write(SUBJECT, same, CASES[0].fact).delta(NAME)
    [row], weight = rows_of(SUBJECT, [CASES[0].fact]), SUBJECT.model.get_parameter(NAME)
    logits = SUBJECT.model(torch.tensor([list(row.ids)])).logits[0, list(row.places)]
    [slope] = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.tensor(row.target)), [weight])
    wanted = (-0.5 * weight.detach().norm() * slope / slope.norm()).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_losses_under_changed_weights_are_those_of_the_changed_model() -> None:
    [matrix] = down_projections(SUBJECT, [2])
    change = 0.5 * torch.randn(matrix.matrix.shape, generator=torch.Generator().manual_seed(0))
    [row], kept = rows_of(SUBJECT, [CASES[0].fact]), SUBJECT.encode(CASES[1].fact.text).ids
    new = new_weights([matrix], [change])
    loss, drift = losses_under(SUBJECT, new, [row], [kept], next_log_probs(SUBJECT, [kept]))
    with torch.no_grad():
        old = SUBJECT.model(torch.tensor([kept])).logits[0, -1].log_softmax(-1)
        with borrowed_weights(SUBJECT, new):
            now = SUBJECT.model(torch.tensor([kept])).logits[0, -1].log_softmax(-1)
            logits = SUBJECT.model(torch.tensor([row.ids])).logits[0, row.prompt - 1 :].log_softmax(-1)
    plain = -np.mean([float(logits[i, token]) for i, token in enumerate(row.target)])
    assert float(loss) == pytest.approx(plain, rel=1e-3)
    assert float(drift) == pytest.approx(float((old.exp() * (old - now)).sum()), rel=1e-2, abs=1e-4)
    assert float(drift) > 1e-4


def test_a_trained_editor_writes_facts_that_it_never_saw(editor: Any) -> None:
    gains = []
    for case in CASES[8:]:
        edited = SUBJECT.with_(hyper_write(SUBJECT, editor, case.fact))
        gains.append(edit_efficacy(SUBJECT, edited, [case], tokens=0).values["magnitude_change"])
    assert np.mean(gains) > 0.5, "p(new) - p(true) begins near -1"
    assert editor.evidence[0].ok is True


def test_the_multiplier_follows_the_excess_of_the_drift(editor: Any) -> None:
    curves = next(one for one in editor.evidence if one.name == "constraint").curves
    multiplier = 1.0
    for drift, found in zip(curves["drift"], curves["multiplier"], strict=True):
        multiplier = max(0.0, multiplier + 0.1 * (drift - 0.1))
        assert found == pytest.approx(multiplier, rel=1e-4)
    assert len(curves["loss"]) == 25


def test_the_request_names_the_answer_so_far_also_where_it_is_not_given() -> None:
    named = Fact("The capital of {} is", "Japan", "Vienna", "Tokyo")
    given, found = requests(SUBJECT, [named, Fact(named.prompt, "Japan", "Vienna")])
    assert given == found, "the model itself says Tokyo"


def test_several_facts_add_up_and_a_saved_editor_writes_the_same(editor: Any, tmp_path: Any) -> None:
    facts = [case.fact for case in CASES[8:]]
    both = hyper_write(SUBJECT, editor, facts).delta(NAME)
    single = [hyper_write(SUBJECT, editor, fact).delta(NAME) for fact in facts]
    np.testing.assert_allclose(both, np.sum(single, 0), atol=1e-3 * np.abs(both).max())
    opened = pellucid.open(editor.save(tmp_path / "editor"))
    np.testing.assert_array_equal(hyper_write(SUBJECT, opened, facts).delta(NAME), both)


def test_what_cannot_be_trained_or_used_is_refused(editor: Any) -> None:
    with pytest.raises(InputError, match="a dozen"):
        pellucid.run("knowledge_editor", SUBJECT, CASES[:1])
    with pytest.raises(InputError, match="no neighbour"):
        pellucid.run("knowledge_editor", SUBJECT, [CASES[0].fact] * 2)
    with pytest.raises(EditError, match="lens"):
        hyper_write(SUBJECT, Learned(apply="lens"), CASES[0].fact)
    other = SUBJECT.with_(pellucid.run("laser", SUBJECT, NAME, keep=0.5))
    with pytest.raises(EditError, match="learned for the weights"):
        hyper_write(other, editor, CASES[0].fact)
