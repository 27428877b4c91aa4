"""LRP against rules written out on values and weights, its conservation per block, and several targets at once."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.methods.relevance.lrp import lrp
from tests import explicit_llama, plain
from tests.tiny import TINY


def test_equals_the_rules_written_out_on_a_llama() -> None:
    model = plain.tiny("llama")
    expected = explicit_llama.relevance(model, plain.IDS, plain.TARGET, given=True)
    found = lrp(pellucid.load(model), plain.IDS, target=plain.TARGET)
    # Llama normalises in float32 whatever its dtype, hence six digits.
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)
    assert found.scores.sum() == pytest.approx(float(plain.logits(model, plain.IDS)[plain.TARGET]), abs=1e-6)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha_beta"])
@pytest.mark.parametrize("name", ["gpt2", "neox-parallel", "bert-classifier", "bloom", "mixtral", "t5"])
def test_conserves_in_every_block_with_the_bias_share_stated(name: str, rule: str) -> None:
    subject = pellucid.load(TINY[name]().double())
    found = lrp(subject, plain.IDS, target=1, rule=rule)
    books = found.evidence[0]
    values = books.values
    assert books.ok
    total = values["tokens"] + values["forced"] + values["constants"]
    # Mixtral normalises in float32.
    tolerance = 1e-6 if name == "mixtral" else 1e-10
    assert total == pytest.approx(values["start"], abs=tolerance)
    assert found.scores.sum() == pytest.approx(values["tokens"], abs=1e-10)
    if name != "t5":
        curve = np.array(books.curves["relevance"])
        assert len(curve) == subject.layers
        assert np.abs(books.curves["remainder"]).max() < tolerance
        if name != "mixtral":
            assert np.abs(books.curves["constants"]).max() > 1e-4


def test_starts_from_the_logit() -> None:
    model = plain.tiny()
    found = lrp(pellucid.load(model), plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST)
    logits = plain.logits(model, plain.IDS)
    assert found.evidence[0].values["start"] == pytest.approx(float(logits[plain.TARGET] - logits[plain.CONTRAST]))


def test_contrasts_and_targets_of_one_backward_are_those_of_single_runs() -> None:
    subject = pellucid.load(plain.tiny())
    one, other = (lrp(subject, plain.IDS, target=t).scores for t in (plain.TARGET, plain.CONTRAST))
    both = lrp(subject, plain.IDS, target=plain.TARGET, contrast=plain.CONTRAST)
    np.testing.assert_allclose(both.scores, one - other, atol=1e-12)
    matrix = lrp(subject, plain.IDS, target=Target.continuation([17, 33, 60], each=True, measure="logit"))
    summed = lrp(subject, plain.IDS, target=Target.continuation([17, 33, 60], measure="logit"))
    np.testing.assert_allclose(matrix.scores.sum(1), summed.scores, atol=1e-12)
    np.testing.assert_allclose(matrix.scores[:, 0], one, atol=1e-12)
    assert matrix.provenance.forwards == 1
    later = lrp(subject, [*plain.IDS, 17], target=33, unit=[(i, i + 1) for i in range(6)])
    np.testing.assert_allclose(matrix.scores[:, 1], later.scores, atol=1e-12)


def test_epsilon_absorbs() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    none, much = (lrp(subject, plain.IDS, target=plain.TARGET, epsilon=e) for e in (0.0, 1.0))
    assert abs(much.scores.sum()) < abs(none.scores.sum())
    assert much.evidence[0].ok is None
    assert abs(much.evidence[0].values["remainder"]) > 0.1


def test_leaves_nothing_behind(unchanged) -> None:
    model = unchanged(plain.tiny())
    subject = pellucid.load(model)
    before = plain.logits(model, plain.IDS)
    lrp(subject, plain.IDS, target=plain.TARGET, rule="gamma")
    assert torch.equal(before, plain.logits(model, plain.IDS))
    vectors = plain.embeddings(model, plain.IDS).requires_grad_()
    plain.from_embeddings(model, vectors)[plain.TARGET].backward()
    assert vectors.grad is not None
    np.testing.assert_allclose(vectors.grad.numpy(), plain.gradient(model, plain.IDS).numpy(), atol=1e-8)
    model.zero_grad(set_to_none=True)
