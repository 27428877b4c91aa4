"""MEMIT's changes satisfy their normal equations, layer by layer, on the model as edited so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError
from pellucid.core.results import WeightEdit
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import wordings
from pellucid.engine.key_covariance import key_covariance
from pellucid.engine.value_optimisation import Settings, optimise_values
from pellucid.methods.editing.memit import memit
from tests.editing import FACTS, PREFIXES, TEXTS, editable, keys_of

QUICK: dict[str, Any] = {"steps": 3, "texts": TEXTS, "neutral": TEXTS[:3], "prefixes": PREFIXES[:1], "rate": 0.2}


def state_behind(subject: pellucid.Subject, layer: int, ids: tuple[int, ...]) -> torch.Tensor:
    """Return the residual stream [positions, dimension] behind a layer below the last, by transformers itself."""
    with torch.no_grad():
        found: torch.Tensor = subject.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return found[layer + 1][0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_normal_equations(kind: str) -> None:
    subject, facts = editable(kind), FACTS
    edit = memit(subject, facts, layers=[0, 1], token="subject", weight=30.0, **QUICK)
    written = wordings(subject, facts, PREFIXES[:1])
    site = "blocks.1.resid_post"
    found = optimise_values(subject, [site], written, Settings(3, 0.2, 0.0625, 0.5, 0.75))
    bare = [(one.rows[0].ids, one.rows[0].position) for one in written]
    wanted = torch.stack([state_behind(subject, 1, ids)[at] for ids, at in bare]) + found.vectors[site]
    layers = down_projections(subject, [0, 1])
    moments = key_covariance(subject, layers, TEXTS)
    on = subject
    for left, (at, one) in zip((2, 1), zip(layers, moments, strict=True), strict=True):
        keys = torch.stack(
            [
                torch.stack([keys_of(on, at.layer, row.ids)[row.position] for row in one_fact.rows]).mean(0)
                for one_fact in written
            ]
        )
        residual = (wanted - torch.stack([state_behind(on, 1, ids)[place] for ids, place in bare])) / left
        delta = torch.as_tensor(edit.delta(at.name)).double()
        delta = delta.T if kind == "gpt2" else delta
        normal = delta @ (30.0 * one.shrunk() + keys.T @ keys) - residual.T @ keys
        assert float(normal.abs().max()) < 1e-5 * float((residual.T @ keys).abs().max())
        assert np.linalg.matrix_rank(edit.delta(at.name), tol=1e-6) <= len(facts)
        on = on.with_(WeightEdit(factors={at.name: edit.factors[at.name]}))
    account = {evidence.name: evidence for evidence in edit.evidence}
    missing = wanted - torch.stack([state_behind(on, 1, ids)[place] for ids, place in bare])
    whole = wanted - torch.stack([state_behind(subject, 1, ids)[place] for ids, place in bare])
    assert account["residual"].values["missing"] == pytest.approx(float(missing.norm() / whole.norm()), rel=1e-4)


def test_less_weight_writes_harder_and_the_default_writes() -> None:
    subject = editable("llama")
    light, heavy = (
        memit(subject, FACTS[:2], layers=[0, 1], token="subject", weight=weight, **QUICK) for weight in (0.1, 1e4)
    )
    missing = [{e.name: e for e in edit.evidence}["residual"].values["missing"] for edit in (light, heavy)]
    assert missing[0] < 0.4 < missing[1]


def test_norms_behind_the_layer_are_refused() -> None:
    with pytest.raises(CapabilityError, match="norm"):
        memit(editable("gemma2"), FACTS[:1], layers=[0, 1], token="subject", **QUICK)
