"""TracLLM: each scorer by its definition in one round, and needles found in a long context."""

import numpy as np
import pytest

import pellucid
from pellucid.engine.coalitions import all_coalitions, exact_shapley
from pellucid.methods.attribution.occlusion import occlusion
from pellucid.methods.attribution.tracllm import tracllm
from tests import plain
from tests.linear import linear

FILL = 3


def value(model: object, present: set[int]) -> float:
    ids = [t if i in present else FILL for i, t in enumerate(plain.IDS)]
    return float(plain.logits(model, ids)[plain.TARGET])


def test_one_round_by_definition() -> None:
    model = plain.tiny("llama")
    subject = pellucid.load(model)
    asked = {"target": plain.TARGET, "replacement": FILL, "keep": 6}
    alone = [value(model, {i}) - value(model, set()) for i in range(6)]
    np.testing.assert_allclose(tracllm(subject, plain.IDS, scorer="alone", **asked).scores, alone, atol=1e-10)
    left = occlusion(subject, plain.IDS, target=plain.TARGET, replacement=FILL).scores
    np.testing.assert_allclose(tracllm(subject, plain.IDS, scorer="left_out", **asked).scores, left, atol=1e-10)
    shapley = tracllm(subject, plain.IDS, scorer="shapley", **asked).scores
    both = tracllm(subject, plain.IDS, **asked).scores
    np.testing.assert_allclose(both, np.max([alone, left, shapley], axis=0), atol=1e-10)


@pytest.mark.slow
def test_all_gains_averaged_are_shapley_values() -> None:
    model = plain.tiny("llama")
    table = [[value(model, set(np.flatnonzero(mask).tolist()))] for mask in all_coalitions(6)]
    exact = exact_shapley(np.array(table), 6)[:, 0]
    runs = [
        tracllm(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=FILL, keep=6, scorer="shapley",
                highest=1.0, permutations=40, seed=seed).scores
        for seed in range(8)
    ]  # fmt: skip
    error = np.std(runs, axis=0, ddof=1) / 8**0.5
    assert (np.abs(np.mean(runs, axis=0) - exact) < 5 * error + 1e-9).all()


@pytest.mark.parametrize("scorer", ["ensemble", "alone", "left_out", "shapley"])
def test_needles_are_found_in_a_long_context(scorer: str) -> None:
    def answer(texts: list[str]) -> list[float]:
        return [4.0 * ("w113" in t) + 3.0 * ("w020" in t) + 0.01 * len(t.split()) for t in texts]

    text = " ".join(f"w{i:03d}" for i in range(160))
    found = tracllm(pellucid.load(answer), text, scorer=scorer, keep=3, permutations=4)
    assert set(np.argsort(-found.scores)[:2]) == {113, 20}
    np.testing.assert_allclose(found.scores[[113, 20]], [4.005, 3.005], atol=0.0051)
    assert 2 <= (found.scores != 0).sum() <= 3
    assert found.evidence[0].values["rounds"] <= 6


def test_few_rounds_leave_groups_that_share() -> None:
    def answer(texts: list[str]) -> list[float]:
        return [8.0 * ("w07" in t) for t in texts]

    text = " ".join(f"w{i:02d}" for i in range(16))
    found = tracllm(pellucid.load(answer), text, keep=1, rounds=1)
    np.testing.assert_allclose(found.scores, [1.0] * 8 + [0.0] * 8)


def test_a_linear_model_gets_its_weights() -> None:
    model = linear()
    found = tracllm(model.subject, model.ids, replacement=model.blank, keep=9, **model.asked)
    np.testing.assert_allclose(found.scores, model.weights, atol=1e-5)
