"""Embedding neighbours against a plain search with Hugging Face's hidden states."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attention.embedding_neighbours import embedding_neighbours
from tests import plain

CORPUS = [[9, 80, 3, 3], [11, 42, 7, 23], [51, 2, 42]]


def hidden(ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return plain.tiny("gpt2")(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0]


def test_nearest_tokens_in_order() -> None:
    wanted = hidden(plain.IDS)[3]
    cosines = {
        (item, at): float(torch.nn.functional.cosine_similarity(vector, wanted, dim=0))
        for item, ids in enumerate(CORPUS)
        for at, vector in enumerate(hidden(ids))
    }
    best = sorted(cosines, key=lambda place: -cosines[place])[:5]
    subject = pellucid.load(plain.tiny("gpt2"))
    found = embedding_neighbours(subject, CORPUS, prompt=plain.IDS, position=3, layer=0, count=5)
    assert [(item["item"], item["position"]) for item in found.items] == best
    np.testing.assert_allclose(found.values, [cosines[place] for place in best], atol=1e-9)
    assert best[0] == (1, 3), "the same prefix gives the same vector"
    assert found.values[0] == pytest.approx(1)


def test_labels_of_neighbours_and_a_single_head() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    labels = [["a", "b", "a", "a"], ["a", "b", "c", "c"], ["c", "c", "c"]]
    found = embedding_neighbours(
        subject, CORPUS, prompt=CORPUS[1], position=1, annotations=labels, site="attn.z", head=2, count=2
    )
    assert found.items[0]["label"] == "b"
    assert found.items[0]["text"] == "⟨11⟩[⟨42⟩]⟨7⟩⟨23⟩"
    assert sum(found.evidence[0].values.values()) == pytest.approx(1)


def test_what_does_not_fit_is_refused() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    with pytest.raises(InputError, match="one label per token"):
        embedding_neighbours(subject, CORPUS, prompt=plain.IDS, annotations=[["a"]])
    with pytest.raises(InputError, match="no heads"):
        embedding_neighbours(subject, CORPUS, prompt=plain.IDS, head=0)
    with pytest.raises(InputError, match="corpus is empty"):
        embedding_neighbours(subject, [], prompt=plain.IDS)
