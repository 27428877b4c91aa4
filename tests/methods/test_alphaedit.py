"""AlphaEdit leaves what the keys of protected text are mapped to as it was, and solves the paper's equation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pellucid.core.results import WeightEdit
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import wordings
from pellucid.methods.editing.alphaedit import _earlier_keys, _projected, alphaedit
from tests.editing import FACTS, TEXTS, editable, keys_of, values_of

FEW = TEXTS[:1]  # fewer tokens than neurons, so that there is a null space to the last digit
QUICK: dict[str, Any] = {
    "steps": 3, "texts": FEW, "neutral": TEXTS[:3], "prefixes": (), "token": "last", "threshold": 1e-9, "clamp": 5.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_protected_keys_are_mapped_as_before(kind: str) -> None:
    subject = editable(kind)
    edit = alphaedit(subject, FACTS[:2], layers=[1], **QUICK)
    view = subject.with_(edit)
    ids = subject.encode(FEW[0]).ids
    before, after = values_of(subject, 1, ids)[1:], values_of(view, 1, ids)[1:]
    assert float((after - before).abs().max()) < 1e-5 * float(before.abs().max())
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert account["residual"].values["missing"] < 0.5
    row = wordings(subject, FACTS[:1], (), "last")[0].rows[0]
    moved = values_of(view, 1, row.ids)[row.position] - values_of(subject, 1, row.ids)[row.position]
    assert float(moved.norm()) > 1e-2
    delta = torch.as_tensor(edit.delta(edit.names[0])).double()
    keys = keys_of(subject, 1, ids)[1:]
    assert float((keys @ (delta if kind == "gpt2" else delta.T)).abs().max()) < 1e-5


def test_the_papers_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, before = (torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in (3, 2))
    free = torch.linalg.qr(torch.randn(12, 5, generator=generator, dtype=torch.float64))[0]
    projector = free @ free.T
    ridge = 0.3 * float((keys @ projector).square().sum(1).mean())
    system = before.T @ before @ projector + keys.T @ keys @ projector + ridge * torch.eye(12, dtype=torch.float64)
    expected = keys @ projector @ torch.linalg.inv(system)
    torch.testing.assert_close(_projected(keys, before, free, 0.3), expected)


def test_earlier_facts_stay() -> None:
    subject = editable("llama")
    first = alphaedit(subject, FACTS[0], layers=[1], **QUICK)
    view = subject.with_(first)
    at = down_projections(view, [1])
    ours = _earlier_keys(view, at, FACTS[:1], "last")[0]
    row = wordings(view, FACTS[:1], (), "last")[0].rows[0]
    torch.testing.assert_close(ours[0], keys_of(view, 1, row.ids)[row.position])
    moved = []
    for earlier in ((), FACTS[:1]):
        second = alphaedit(view, FACTS[2], layers=[1], earlier=earlier, **QUICK)
        both = view.with_(second)
        moved.append(float((values_of(both, 1, row.ids) - values_of(view, 1, row.ids))[row.position].norm()))
    assert moved[1] < 0.7 * moved[0]
    assert isinstance(second, WeightEdit)
