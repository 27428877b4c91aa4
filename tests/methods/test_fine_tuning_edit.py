"""Fine-tuning gives the weights that plain PyTorch gives, and the bounded form stays within its bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.core.errors import EditError
from pellucid.engine.edit_requests import wordings
from pellucid.methods.editing.fine_tuning_edit import fine_tuning_edit
from tests.editing import FACTS, TEXTS, editable, matrix_of
from tests.state import changed, model_state


@pytest.mark.parametrize(("kind", "bound"), [("llama", None), ("gpt2", 0.1)])
def test_it_is_adam_on_the_matrices(kind: str, bound: float | None) -> None:
    subject = editable(kind)
    before = model_state(subject.model)
    edit = fine_tuning_edit(
        subject, FACTS[:2], layers=[1], bound=bound, steps=5, rate=0.05, neutral=TEXTS[:2], enough=0.0
    )
    assert changed(before, model_state(subject.model)) == []
    rows = [one.rows[0] for one in wordings(subject, FACTS[:2])]
    view = subject.with_()
    weight = matrix_of(view, 1).weight
    own = weight.detach().clone()
    size = float(own.square().mean().sqrt())
    optimiser = torch.optim.Adam([weight], lr=0.05 * size)
    try:
        for _ in range(5):
            parts = []
            for row in rows:
                logits = subject.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
                picked = [logits[row.prompt - 1 + i, token] for i, token in enumerate(row.target)]
                parts.append(-torch.stack(picked).mean())
            optimiser.zero_grad()
            torch.stack(parts).mean().backward()
            optimiser.step()
            if bound is not None:
                weight.data.copy_(torch.maximum(torch.minimum(weight.data, own + bound * size), own - bound * size))
        expected = (weight.detach() - own).numpy()
    finally:
        weight.data.copy_(own)
        subject.model.zero_grad()
    delta = edit.delta(edit.names[0])
    np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-9)
    assert edit.title.startswith("FT-L" if bound else "FT:")
    assert bound is None or float(np.abs(delta).max()) == pytest.approx(bound * size)
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert account["fine-tuning"].values["last"] < account["fine-tuning"].values["first"]
    assert account["efficacy"].values["after"] > account["efficacy"].values["before"]


def test_it_stops_when_enough_and_refuses_no_numbers() -> None:
    subject = editable("llama")
    edit = fine_tuning_edit(subject, FACTS[0], layers=[1], steps=3, enough=100.0, neutral=TEXTS[:2])
    assert not edit.delta(edit.names[0]).any()
    before = model_state(subject.model)
    with pytest.raises(EditError, match="smaller rate"):
        fine_tuning_edit(subject, FACTS[0], layers=[1], steps=3, rate=float("inf"), neutral=TEXTS[:2])
    assert changed(before, model_state(subject.model)) == []
