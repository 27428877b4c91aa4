"""ReAGent against its recursion written out, and on a model whose important words are known."""

import math

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.errors import CapabilityError
from pellucid.engine.infilling import proposals
from pellucid.methods.attribution.reagent import reagent
from tests import plain
from tests.linear import linear


def test_the_recursion_written_out() -> None:
    model, steps = plain.tiny("llama"), 7
    subject = pellucid.load(model)
    rng = np.random.default_rng(3)
    q = [plain.logits(model, plain.IDS[:i] or [1]).softmax(-1).numpy() for i in range(6)]
    chosen = [rng.choice(6, 2, replace=False) for _ in range(steps)]

    def p(ids: list[int]) -> float:
        return float(plain.logits(model, ids).softmax(-1)[plain.TARGET])

    importance, total = np.zeros(6), 0.0
    for which in chosen:
        ids = list(plain.IDS)
        for i in sorted(which):
            ids[i] = int(rng.choice(100, p=q[i] / q[i].sum()))
        lost = p(plain.IDS) - p(ids)
        share = (lost + 1) / 2
        update = math.log(share / (1 - share))
        total += update
        for i in range(6):
            importance[i] += update if i in which else -update
    found = reagent(subject, plain.IDS, target=plain.TARGET, steps=steps, seed=3)
    np.testing.assert_allclose(found.scores, importance / steps - (2 * 2 / 6 - 1) * total / steps, atol=1e-9)
    softmax = np.exp(steps * found.scores) / np.exp(steps * found.scores).sum()
    np.testing.assert_allclose(softmax, np.exp(importance) / np.exp(importance).sum(), atol=1e-9)


def test_proposals_of_a_causal_model_are_its_next_words() -> None:
    model = plain.tiny("llama")
    found = proposals(pellucid.load(model), pellucid.load(model).encode(plain.IDS), [0, 4])
    torch.testing.assert_close(found[0], plain.logits(model, [1]).softmax(-1), atol=1e-12, rtol=0)
    torch.testing.assert_close(found[1], plain.logits(model, plain.IDS[:4]).softmax(-1), atol=1e-12, rtol=0)


def test_votes_rank_above_bystanders_and_against_the_other_side() -> None:
    model = linear()
    found = reagent(model.subject, model.ids, steps=400, **model.asked)
    for high in np.flatnonzero(model.weights > 0):
        assert found.scores[high] > found.scores[3] > found.scores[4]


def test_a_matrix_costs_no_more_than_its_first_column() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    each = reagent(subject, plain.IDS, target=Target.continuation([17, 20, 3], each=True), steps=9)
    first = reagent(subject, plain.IDS, target=17, steps=9)
    assert each.scores.shape == (6, 3)
    np.testing.assert_allclose(each.scores[:, 0], first.scores, atol=1e-9)
    assert each.provenance.forwards == first.provenance.forwards


def test_a_classifier_needs_a_filler() -> None:
    with pytest.raises(CapabilityError, match="filler="):
        reagent(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
