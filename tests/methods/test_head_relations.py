"""Head relations: merged words by hand, and a model whose heads follow known relations."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attention.head_relations import head_relations
from tests import plain


def test_the_heads_of_the_induction_circuit_follow_their_relations() -> None:
    """Head 0.0 points at the word before, head 1.1 at the word behind the last word's earlier place."""
    subject = pellucid.load("zoo:truth/induction")
    examples = [
        {"prompt": "red blue green red", "relations": [(3, 1, "follower"), (3, 2, "before"), (2, 1, "before")]},
        {"prompt": "gold pink red gold pink", "relations": [(4, 2, "follower"), (4, 3, "before")]},
        {"prompt": "pink blue grey blue", "relations": [(3, 2, "follower"), (2, 1, "before")]},
    ]
    found = head_relations(subject, examples)
    scores = dict(zip(found.labels["class"], found.scores, strict=True))
    assert scores["before"][0, 0] == 1
    assert scores["follower"][1, 1] == 1
    assert scores["before"][1, 1] < 1
    values = found.evidence[0].values
    assert values["before, fixed distance"] == 1
    assert values["follower, fixed distance"] == pytest.approx(2 / 3)
    assert "follower" in found.evidence[0].summary


def test_words_of_several_tokens_by_hand() -> None:
    model = plain.tiny("bert-classifier")
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight.mul_(60)  # so that heads look at different words
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    spans, relations = [(0, 2), (2, 3), (3, 5), (5, 6)], [(0, 2, "r"), (2, 1, "r"), (3, 0, "r")]
    expected = np.zeros((2, 4))
    for layer, pattern in enumerate(patterns):
        for head in range(4):
            for start, end, _ in relations:
                sums = [
                    float(pattern[0, head, slice(*spans[start]), slice(*span)].sum(1).mean()) if word != start else -1
                    for word, span in enumerate(spans)
                ]
                expected[layer, head] += (int(np.argmax(sums)) == end) / 3
    subject = pellucid.load(model)
    found = head_relations(subject, [{"prompt": plain.IDS, "relations": relations}], unit=spans)
    np.testing.assert_allclose(found.scores[0], expected)
    assert len(np.unique(expected)) > 1, "heads differ here"
    turned = [(b, a, label) for a, b, label in relations]
    other = head_relations(subject, [{"prompt": plain.IDS, "relations": turned}], unit=spans, direction="to_dependent")
    np.testing.assert_array_equal(other.scores, found.scores)


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="use 0 to 5"):
        head_relations(subject, [{"prompt": plain.IDS, "relations": [(6, 0, "r")]}], unit="token")
    with pytest.raises(InputError, match="to itself"):
        head_relations(subject, [{"prompt": plain.IDS, "relations": [(2, 2, "r")]}], unit="token")
    with pytest.raises(InputError, match="could follow"):
        head_relations(subject, [{"prompt": plain.IDS, "relations": [(2, 4, "r")]}], unit="token")
