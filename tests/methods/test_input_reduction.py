"""Input reduction against a plain search over inputs."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid.methods.attribution.input_reduction import input_reduction
from tests import plain
from tests.linear import linear

FILL = 6


def margin(model: torch.nn.Module, kept: frozenset[int], target: int) -> float:
    logits = plain.logits(model, [t if i in kept else FILL for i, t in enumerate(plain.IDS)]).clone()
    value = float(logits[target])
    logits[target] = -torch.inf
    return value - float(logits.max())


def search(model: torch.nn.Module, target: int, beam: int) -> tuple[list[frozenset[int]], float]:
    """The paper's search: from every input in the beam drop one unit, keep the best that decide the same."""
    rows = [frozenset(range(6))]
    best = margin(model, rows[0], target)
    while len(rows[0]) > 1:
        shorter = {row - {i} for row in rows for i in row}
        scored = [(margin(model, row, target), row) for row in shorter]
        scored = sorted((s for s in scored if s[0] > 0), key=lambda s: -s[0])
        if not scored:
            return rows, best
        rows, best = [row for _, row in scored[:beam]], scored[0][0]
    return rows, best


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("beam", [1, 3, 64])
def test_equals_a_plain_search(name: str, beam: int) -> None:
    model = plain.tiny(name)
    target = int(plain.logits(model, plain.IDS).argmax())
    rows, best = search(model, target, beam)
    found = input_reduction(pellucid.load(model), plain.IDS, replacement=FILL, beam=beam)
    kept = frozenset(int(i) for i in np.flatnonzero(found.scores))
    assert kept == rows[0]
    assert found.evidence[0].values["after"] == pytest.approx(best, abs=1e-10)
    for i in kept:
        assert found.scores[i] == pytest.approx(best - margin(model, kept - {i}, target), abs=1e-10)
        assert len(kept) == 1 or found.scores[i] >= best


def test_a_wide_beam_is_never_longer_than_a_narrow_one() -> None:
    for name in ("gpt2", "llama", "opt", "bloom"):
        subject = pellucid.load(plain.tiny(name))
        kept = [
            input_reduction(subject, plain.IDS, replacement=FILL, beam=b).evidence[0].values["kept"] for b in (1, 64)
        ]
        assert kept[1] <= kept[0]


def test_one_vote_is_enough_for_a_linear_model() -> None:
    model = linear()
    found = input_reduction(model.subject, model.ids, replacement=model.blank, **model.asked)
    [left] = np.flatnonzero(found.scores)
    assert found.scores[left] == pytest.approx(model.weights[left], abs=1e-5)
    assert found.evidence[0].values["kept"] == 1


def test_text_is_reduced_by_deletion() -> None:
    def film(texts: list[str]) -> list[list[float]]:
        return [[2.0 * ("superb" in text) - ("dull" in text), 0.5] for text in texts]

    found = input_reduction(pellucid.load(film), "a superb film, never dull")
    assert found.units is not None
    assert [found.units.labels[i].strip() for i in np.flatnonzero(found.scores)] == ["superb"]
    curve = found.evidence[0].curves["margin"]
    assert curve[0] == 0.5
    assert curve[-1] == 1.5
