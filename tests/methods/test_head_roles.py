"""Head roles against counting by hand, and on a model whose heads were written down with their roles."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attention.head_roles import head_roles
from tests import plain

REPEATED = [11, 42, 7, 42, 11, 42]


def hugging_face(name: str, ids: list[int]) -> np.ndarray:
    """Return the patterns [layer, head, query, key]."""
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_attentions=True)
    return torch.stack([pattern[0] for pattern in output.attentions]).double().numpy()


def entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log(shares)).sum(-1)


def test_shares_by_hand() -> None:
    a = hugging_face("llama", REPEATED)
    found = head_roles(pellucid.load(plain.tiny("llama")), REPEATED, target=plain.TARGET)
    scores = dict(zip(found.labels["part"], found.scores, strict=True))
    expected = {
        "self": sum(a[..., i, i] for i in range(6)) / 6,
        "previous": sum(a[..., i, i - 1] for i in range(1, 6)) / 5,
        "first": sum(a[..., i, 0] for i in range(1, 6)) / 5,
        "duplicate": (a[..., 3, 1] + a[..., 4, 0] + a[..., 5, 1] + a[..., 5, 3]) / 3,
        "induction": (a[..., 3, 2] + a[..., 4, 1] + a[..., 5, 2] + a[..., 5, 4]) / 3,
        "broad": sum(entropy(a[..., i, : i + 1]) / np.log(i + 1) for i in range(1, 6)) / 5,
    }
    assert set(scores) == set(expected), "a decoder has no next token, and ids no separators"
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, atol=1e-6, err_msg=name)
    assert found.evidence[0].values["previous"] == pytest.approx(np.mean([1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]))


def test_several_prompts_count_each_query_alike() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    one, two = (head_roles(subject, ids, target=1, quantity="distance").scores for ids in (REPEATED, [11, 42]))
    both = head_roles(subject, REPEATED, target=1, others=[[11, 42]], quantity="distance").scores
    np.testing.assert_allclose(both, (6 * one + 2 * two) / 8)


def test_entropy_and_distance_of_an_encoder() -> None:
    a = hugging_face("bert-classifier", plain.IDS)
    subject = pellucid.load(plain.tiny("bert-classifier"))
    found = head_roles(subject, plain.IDS, target=1, quantity="entropy").scores
    np.testing.assert_allclose(found, entropy(a).mean(-1), atol=1e-6)
    away = np.abs(np.arange(6)[:, None] - np.arange(6))
    distance = head_roles(subject, plain.IDS, target=1, quantity="distance").scores
    np.testing.assert_allclose(distance, (a * away).sum(-1).mean(-1), atol=1e-6)
    assert "next" in head_roles(subject, plain.IDS, target=1).labels["part"]


def test_finds_the_heads_of_the_induction_circuit() -> None:
    """In the constructed model, head 0 of layer 0 looks at the previous word, head 1 of layer 1 does induction."""
    subject = pellucid.load("zoo:truth/induction")
    found = head_roles(subject, "red blue green red", others=["gold pink black gold", "grey blue brown grey"])
    scores = dict(zip(found.labels["part"], found.scores, strict=True))
    for role, head in (("previous", (0, 0)), ("induction", (1, 1))):
        rest = np.delete(scores[role].ravel(), np.ravel_multi_index(head, scores[role].shape))
        assert scores[role][head] > 0.95
        assert scores[role][head] > 1.5 * rest.max()
