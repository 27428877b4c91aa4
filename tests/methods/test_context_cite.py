"""ContextCite against its lasso written out, on planted sources, and its evidence."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso

import pellucid
from pellucid import Target
from pellucid.engine.coalitions import all_coalitions
from pellucid.methods.attribution.context_cite import context_cite
from tests import plain
from tests.linear import linear

SOURCES = "Ann has a cat. Bob has a dog. Cid has a cow. Dan has an owl. Eve has a fox. Fay has a pig."


def response(model: object, ids: list[int], continuation: list[int]) -> float:
    """The log-probability of a continuation, token by token."""
    return sum(
        float(plain.logits(model, ids + continuation[:k]).log_softmax(-1)[token])
        for k, token in enumerate(continuation)
    )


@pytest.mark.parametrize("relative", [False, True])
def test_it_is_the_lasso_of_the_logit(relative: bool) -> None:
    model, continuation = plain.tiny("llama"), [17, 20, 3]
    masks = all_coalitions(6)
    log_probs = np.array(
        [
            response(model, [t if keep else 3 for t, keep in zip(plain.IDS, mask, strict=True)], continuation)
            for mask in masks
        ]
    )
    outcome = (log_probs - np.log(1 - np.exp(log_probs))) / 3
    rows = (masks - 0.5) / 0.5
    size = np.abs(rows.T @ (outcome - outcome.mean())).max() / 64 if relative else 1.0
    expected = Lasso(alpha=0.02 * size, max_iter=100_000).fit(rows, outcome).coef_ / 0.5 * 3
    found = context_cite(
        pellucid.load(model), plain.IDS, target=Target.continuation(continuation), unit="token", replacement=3,
        penalty=0.02, relative=relative,
    )  # fmt: skip
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert found.unit == "logit of probability"


def test_the_sources_that_matter_are_found_and_the_others_get_nothing() -> None:
    def answer(texts: list[str]) -> list[float]:
        return [4.0 * ("dog" in t) + 2.0 * ("fox" in t) for t in texts]

    found = context_cite(pellucid.load(answer), SOURCES, samples=40, penalty=0.05)
    assert found.units is not None
    assert len(found.units.labels) == 6
    assert list(np.flatnonzero(np.abs(found.scores) > 0.5)) == [1, 4]
    assert (np.abs(found.scores[[0, 2, 3, 5]]) < 0.15).all()
    lds, drop = found.evidence
    assert lds.values["lds"] > 0.9
    assert lds.values["subsets"] == 32
    assert drop.values["top 1"] == 4.0
    assert drop.values["top 3"] == 6.0
    assert found.provenance.forwards <= 40 + 32 + 4


def test_the_models_own_response_is_the_default() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    found = context_cite(subject, "Ann has a cat. Bob has a dog. Bob has", length=3, samples=8)
    own = pellucid.run(
        "occlusion", subject, "Ann has a cat. Bob has a dog. Bob has", target=Target.generated(3, each=False)
    )
    assert found.target == own.target


def test_a_linear_model_gives_its_weights() -> None:
    case = linear()
    found = context_cite(case.subject, case.ids, **case.asked, unit="token", replacement=case.blank, penalty=1e-6)
    np.testing.assert_allclose(found.scores, case.weights, atol=1e-4)
