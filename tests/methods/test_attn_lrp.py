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


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "neox-parallel"])
def test_the_last_layer_at_the_rows_that_are_read_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.engine import relevance

    asked = {"target": pellucid.Target.continuation([9, 31, 14], each=True)}
    quick = attn_lrp(pellucid.load(plain.tiny(name)), plain.IDS, **asked)
    monkeypatch.setattr(relevance, "_last_layer", lambda *_: {})
    whole = attn_lrp(pellucid.load(plain.tiny(name)), plain.IDS, **asked)
    np.testing.assert_allclose(quick.scores, whole.scores, atol=1e-9)
    for key, value in whole.evidence[0].values.items():
        assert quick.evidence[0].values[key] == pytest.approx(value, abs=1e-9)


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
