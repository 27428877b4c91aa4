"""What is read at few places of the last block equals the whole block; the head reads the ends of batches together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.engine import reading
from pellucid.engine.model_head import LateOutputs, at_once
from pellucid.engine.question import ask
from pellucid.engine.readout import measured
from pellucid.engine.scoring import _measured, score_plain
from pellucid.engine.variants import Variant, whole
from pellucid.models.last_block import at_places
from tests.tiny import TINY

IDS = [2, 11, 42, 7, 3, 64]
FIRST = ("bert-classifier", "roberta-classifier", "distilbert-classifier", "electra-classifier",
         "deberta-v2-classifier")  # fmt: skip
ALL = ("modernbert-classifier", "albert-classifier")  # a mean over all places, and blocks that share their modules


@pytest.mark.parametrize("name", [*FIRST, *ALL])
def test_an_encoder_gives_the_same_from_the_places_that_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(TINY[name]().double())
    question = ask(subject, IDS, target=1)
    ids = question.tokens.ids
    variants = [
        whole(question.tokens),
        Variant(ids[:2] + ids[4:], tuple(i for i in range(len(ids)) if i not in (2, 3))),
    ]
    found = score_plain(subject, question.tokens, question.readout, variants)
    known = [value for key, value in subject.state.cache.items() if key[0] == "read behind the last block"]
    assert known == [name in FIRST]
    monkeypatch.setattr(reading, "_ends", lambda *_: None)
    assert np.abs(found - score_plain(subject, question.tokens, question.readout, variants)).max() < 1e-12


@pytest.mark.parametrize(("name", "modules"), [("gpt2", 2), ("llama", 2), ("gemma2", 2), ("bert-classifier", 3)])
def test_each_module_behind_the_last_attention_works_at_the_places_alone(name: str, modules: int) -> None:
    """The feed-forward layer is one module, or two where no module holds both of its products."""
    subject = pellucid.load(TINY[name]().double())
    work = at_places(subject, torch.tensor([[1], [0]]))
    assert len(work) == modules
    for module, at in work.items():
        width = next(p.shape for p in module.parameters() if p.ndim == 2)
        width = width[0] if "Conv1D" in type(module).__name__ or name == "gpt2" else width[1]
        given = torch.randn(2, 5, width, dtype=torch.float64)
        whole_block, alone = module(given), at(given)
        assert torch.allclose(alone[[0, 1], [1, 0]], whole_block[[0, 1], [1, 0]])
        assert torch.count_nonzero(alone[0, [0, 2, 3, 4]]) == torch.count_nonzero(alone[1, 1:]) == 0


def test_outputs_wait_until_they_are_enough_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(TINY["gpt2"]().double())
    monkeypatch.setattr("pellucid.engine.model_head.NUMBERS_AT_ONCE", 5 * subject.vocabulary)
    assert at_once(subject) == 5
    read: list[tuple[torch.Tensor, list[Any]]] = []
    late = LateOutputs(subject, lambda outputs, labels: read.append((outputs, labels)))
    vectors = torch.randn(4, 2, 32, dtype=torch.float64)
    late.add(vectors[:2], ["a", "b"])
    assert not read
    late.add(vectors[2:], ["c", "d"])
    late.finish()
    late.finish()
    assert [labels for _, labels in read] == [["a", "b"], ["c", "d"]]
    with torch.no_grad():
        head = subject.model.lm_head(subject.model.transformer.ln_f(vectors))
    assert torch.allclose(torch.cat([outputs for outputs, _ in read]), head)


@pytest.mark.parametrize("measure", ["log_prob", "prob"])
def test_measures_are_the_same_of_some_rows_at_a_time(measure: str) -> None:
    logits, ids = 50 * torch.randn(70, 11, dtype=torch.float64), torch.arange(70) % 11
    each = torch.stack([measured(row[None, None], [int(i)], measure)[0, 0] for row, i in zip(logits, ids, strict=True)])
    assert torch.allclose(_measured(logits, ids, measure), each, rtol=1e-14)
