"""Occlusion against one plain forward per removed unit."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.methods.attribution.occlusion import occlusion
from tests import plain


def test_deletion_equals_a_loop() -> None:
    model = plain.tiny()
    whole = plain.logits(model, plain.IDS)[plain.TARGET]
    expected = [float(whole - plain.logits(model, plain.IDS[:i] + plain.IDS[i + 1 :])[plain.TARGET]) for i in range(6)]
    found = occlusion(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement="delete")
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)
    assert found.provenance.forwards == 7


def test_a_token_id_replaces_every_token_of_a_unit() -> None:
    model = plain.tiny("llama")
    whole = plain.logits(model, plain.IDS)[plain.TARGET]
    spans = [(0, 2), (3, 6)]
    expected = []
    for start, end in spans:
        ids = [3 if start <= i < end else t for i, t in enumerate(plain.IDS)]
        expected.append(float(whole - plain.logits(model, ids)[plain.TARGET]))
    found = occlusion(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3, unit=spans)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


@pytest.mark.parametrize("replacement", ["mean", "zero"])
def test_an_embedding_can_be_emptied(replacement: str) -> None:
    model = plain.tiny()
    table = model.get_input_embeddings().weight.detach()
    filler = table.mean(0) if replacement == "mean" else torch.zeros(32, dtype=torch.float64)
    whole = plain.logits(model, plain.IDS)[plain.TARGET]
    expected = []
    for i in range(6):
        vectors = plain.embeddings(model, plain.IDS)
        vectors[i] = filler
        expected.append(float(whole - plain.from_embeddings(model, vectors)[plain.TARGET].detach()))
    found = occlusion(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=replacement)
    np.testing.assert_allclose(found.scores, expected, atol=1e-10)


def test_a_contrast_of_two_continuations_of_different_length() -> None:
    model = plain.tiny("llama")

    def span(ids: list[int], continuation: list[int]) -> float:
        return sum(
            float(plain.logits(model, ids + continuation[:k]).log_softmax(-1)[token])
            for k, token in enumerate(continuation)
        )

    expected = []
    for i in range(6):
        shorter = plain.IDS[:i] + plain.IDS[i + 1 :]
        expected.append(
            span(plain.IDS, [17, 20]) - span(plain.IDS, [33]) - span(shorter, [17, 20]) + span(shorter, [33])
        )
    target = Target.continuation([17, 20], contrast=[33])
    found = occlusion(pellucid.load(model), plain.IDS, target=target, replacement="delete")
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)


def test_a_black_box_is_explained_by_its_words() -> None:
    def counts(texts: list[str]) -> list[float]:
        return [2.0 * text.count("good") - text.count("bad") for text in texts]

    found = occlusion(pellucid.load(counts), "a good film, not bad")
    assert found.units is not None
    labels = [label.strip() for label in found.units.labels]
    assert dict(zip(labels, found.scores, strict=True)) == {"a": 0, "good": 2, "film,": 0, "not": 0, "bad": -1}


def test_many_prompts_of_unequal_length_equal_one_by_one() -> None:
    subject = pellucid.load(plain.tiny())
    prompts = [plain.IDS, plain.IDS[:3], [9, 8, 7, 6, 5, 4, 3, 2]]
    together = occlusion(subject, prompts, target=plain.TARGET)
    for prompt, found in zip(prompts, together, strict=True):
        np.testing.assert_allclose(found.scores, occlusion(subject, prompt, target=plain.TARGET).scores, atol=1e-12)


@pytest.mark.peers
def test_agrees_with_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    model = plain.tiny("llama").float()
    peer = captum.FeatureAblation(lambda x: model(input_ids=x).logits[:, -1])
    theirs = peer.attribute(torch.tensor([plain.IDS]), baselines=3, target=plain.TARGET)
    ours = occlusion(pellucid.load(model), plain.IDS, target=plain.TARGET, replacement=3)
    np.testing.assert_allclose(ours.scores, theirs[0].detach().numpy(), rtol=1e-4, atol=1e-6)
