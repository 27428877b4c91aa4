"""Replaced rows of attention: the short way behind the pattern equals the edit of the pattern; distances by scipy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

import pellucid
from pellucid import Edit
from pellucid.core.errors import CapabilityError, TargetError
from pellucid.engine.attention_rows import attention_rows, score_rows
from pellucid.engine.cone import score_edits_plain
from pellucid.engine.output_distance import Distance, distance_readout, jensen_shannon, total_variation
from pellucid.engine.question import ask
from pellucid.engine.reading import read
from pellucid.engine.variants import whole
from pellucid.models import forward
from tests import plain


@pytest.mark.parametrize("name", ["llama", "neox-parallel", "bert-classifier", "t5", "mixtral"])
def test_equals_the_edit_of_the_pattern(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    question = ask(subject, plain.IDS, target=1)
    found = attention_rows(question)
    assert all(row.sum(-1).numpy() == pytest.approx(1, abs=1e-5) for row in found.rows)
    generator = torch.Generator().manual_seed(0)
    new = [(i, torch.rand(row.shape, generator=generator, dtype=torch.float64)) for i, row in enumerate(found.rows)]
    edits = [(Edit(found.sites[i], "set", row[:, None], {"query": found.query}),) for i, row in new]
    expected = score_edits_plain(subject, question.tokens, question.readout, [(), *edits])
    scores = score_rows(question, question.readout, found, [*new, (0, found.rows[0])])
    np.testing.assert_allclose(scores[:-1], expected[1:], atol=1e-5)
    np.testing.assert_allclose(scores[-1], expected[0], atol=1e-5)  # its own row changes nothing
    assert np.abs(expected[1:] - expected[0]).min() > 1e-4


def test_weights_are_computed_in_the_layers_named_only(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = pellucid.load(plain.tiny())
    question, computed, own = ask(subject, plain.IDS, target=1), [], forward.opened

    def opened(model: object, modules: Any, interface: bool) -> Any:
        computed.extend(modules)
        return own(model, modules, interface)

    monkeypatch.setattr(forward, "opened", opened)
    found = attention_rows(question, [-1])
    assert computed == [subject.model.transformer.h[1].attn]
    assert found.sites == ("blocks.1.attn.pattern",)
    assert found.query == 5
    assert found.layers == ("1",)
    with pytest.raises(TargetError, match="2 tokens"):
        attention_rows(ask(subject, plain.IDS, target=[1, 2]))


def test_distances_are_those_of_scipy_and_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand((2, 7), generator=generator, dtype=torch.float64).softmax(-1)
    assert float(jensen_shannon(p, q)) == pytest.approx(jensenshannon(p.numpy(), q.numpy()) ** 2, abs=1e-12)
    assert float(total_variation(p, q)) == pytest.approx(max(_events(p - q)), abs=1e-12)
    one, other = torch.eye(2, dtype=torch.float64)
    assert float(jensen_shannon(one, other)) == pytest.approx(np.log(2))


def _events(difference: torch.Tensor) -> list[float]:
    """Total variation is the largest difference of the probabilities of any event."""
    return [float(sum(d for i, d in enumerate(difference.tolist()) if event >> i & 1)) for event in range(2**7)]


def test_reads_the_distance_of_output_distributions() -> None:
    model = plain.tiny()
    subject = pellucid.load(model)
    question = ask(subject, plain.IDS, target=1)
    edit = Edit("blocks.0.attn.pattern", "scale", 0.1)
    p = plain.logits(model, plain.IDS).softmax(-1).numpy()
    _, output = read(subject, question.tokens, question.readout, [whole(question.tokens)], edits=[(edit,)])
    assert output is not None
    q = output.logits[0, 0].softmax(-1).detach().numpy()
    expected: dict[Distance, float] = {
        "total_variation": float(0.5 * np.abs(p - q).sum()),
        "jensen_shannon": float(jensenshannon(p, q) ** 2),
    }
    for distance, value in expected.items():
        readout = distance_readout(question, distance)
        found = score_edits_plain(subject, question.tokens, readout, [(), (edit,)])[:, 0]
        np.testing.assert_allclose(found, [0, value], atol=1e-9)
        assert value > 1e-4


def test_a_model_without_a_head_has_no_distribution() -> None:
    subject = pellucid.load(plain.tiny("bert"))
    with pytest.raises(CapabilityError, match="no output head"):
        distance_readout(ask(subject, plain.IDS, target=lambda hidden: hidden[:, 0]), "total_variation")
