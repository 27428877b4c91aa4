"""AttnLRP against the paper's rules written out on values and weights; its note for users."""

import numpy as np
import pytest

import pellucid
from pellucid.explain import explain
from pellucid.methods.relevance.attn_lrp import attn_lrp
from tests import explicit_llama, plain


def test_equals_the_rules_of_the_paper_written_out() -> None:
    model = plain.tiny("llama")
    expected = explicit_llama.relevance(model, plain.IDS, plain.TARGET, given=False)
    found = attn_lrp(pellucid.load(model), plain.IDS, target=plain.TARGET)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)


def test_what_the_softmax_keeps_is_stated() -> None:
    found = attn_lrp(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET)
    values = found.evidence[0].values
    assert found.evidence[0].ok is None
    assert abs(values["remainder"]) > 1e-3
    total = values["tokens"] + values["forced"] + values["constants"] + values["remainder"]
    assert total == pytest.approx(values["start"], abs=1e-12)


def test_carries_its_patent_note_and_is_never_chosen_by_itself() -> None:
    entry = next(m for m in pellucid.methods() if m["name"] == "attn_lrp")
    assert "patent" in entry["patent"]
    explanation = explain(pellucid.load(plain.tiny()), plain.IDS, target=plain.TARGET)
    assert "attn_lrp" not in [result.provenance.method for result in explanation.results]
