"""Thresholded highlights against Hugging Face's attention and scikit-learn's token classification figures."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Scores
from pellucid.methods.attention.thresholded_highlights import thresholded_highlights
from tests import plain


@pytest.mark.parametrize(("name", "row"), [("llama", -1), ("bert-classifier", 0)])
def test_marks_what_the_read_position_looks_at(name: str, row: int) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    attention = torch.stack(patterns)[:, 0, :, row].double().mean(1)
    subject = pellucid.load(model)
    for layers, shares in ((None, attention.mean(0).numpy()), ([1], attention[1].numpy())):
        found = thresholded_highlights(subject, plain.IDS, target=1, layers=layers)
        np.testing.assert_allclose(found.scores, np.where(shares > 1 / 6, shares, 0), atol=1e-6)
        assert 0 < (found.scores > 0).sum() < 6


def test_other_scores_are_judged_as_a_classification() -> None:
    scores = Scores(values=np.array([0.5, -2.0, 0.1, 0.3, 0.0, 0.1]))
    truth = [0, 3, 5]
    subject = pellucid.load(plain.tiny("gpt2"))
    found = thresholded_highlights(subject, plain.IDS, target=1, scores=scores, threshold=0.25, rationale=truth)
    np.testing.assert_allclose(found.scores, [0.5, 0, 0, 0.3, 0, 0])
    expected = precision_recall_fscore_support(
        np.isin(range(6), truth), found.scores > 0, average="binary", pos_label=True
    )
    values = found.evidence[0].values
    assert [values["precision"], values["recall"], values["f1"]] == pytest.approx(expected[:3])
    assert values["best_f1"] == pytest.approx(6 / 7), "at 0.1, four marks hold the three"
    assert values["f1_of_everything"] == pytest.approx(2 / 3)


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="6 units"):
        thresholded_highlights(subject, plain.IDS, target=1, scores=Scores(values=np.ones(5)))
    with pytest.raises(InputError, match="0 to 5"):
        thresholded_highlights(subject, plain.IDS, target=1, rationale=[6])
    with pytest.raises(InputError, match="has 0 to 1"):
        thresholded_highlights(subject, plain.IDS, target=1, layers=[2])
