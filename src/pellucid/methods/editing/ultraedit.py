"""UltraEdit: write facts in closed form out of keys and gradients, turn after turn, with nothing trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pellucid.core.errors import InputError
from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat
from pellucid.core.results import WeightEdit
from pellucid.engine.down_projection import DownProjection, down_projections
from pellucid.engine.edit_account import accounted
from pellucid.engine.edit_factors import Factors, Wanted, edit_factors, rows_of
from pellucid.models.subject import Subject


@method(
    rows=("N-ED2",),
    paper="arXiv:2505.14679",
    takes="dataset",
    produces="weight_edit",
    needs=("weights", "gradients", "activations"),
)
def ultraedit(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layers: Sequence[int] | int | None = None,
    rate: PositiveFloat = 1.0, ridge: PositiveFloat = 1.0, per_turn: Positive = 50,
    neutral: Sequence[Any] | None = None, seed: Count = 0,
) -> WeightEdit:  # fmt: skip
    """Write facts into feed-forward matrices by one least-squares problem per turn.

    Keys h and gradients g of the target's loss at the matrix's output, at the positions that predict the target, are
    normalised by mean and deviation over all seen so far: h~ and g~. Each asks for the shift v = -rate mean(h~^2) g~,
    and the change is W' - W = V'H (H'H + ridge I)^-1 (Gu et al. 2025, arXiv:2505.14679), made turn after turn on the
    model edited so far. `rate` is the paper's learning rate times the number of neurons. An approximation: one step
    down the gradient, whose size no loss has checked. Of one position nothing is left after normalisation.

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them, two positions or more in all.
        layers: where; None means the middle third of the blocks.
        rate: size of the shifts.
        ridge: weight of the change's own size.
        per_turn: facts per turn.
        neutral: texts on which side effects are measured; None means text that the model writes itself.
        seed: of own texts.

    Returns:
        WeightEdit with the deltas of all matrices, in the model's own layout; its evidence has the targets' probability
        before and after, and the side effects.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError: a single position in all.
        EditError: a tied matrix, or a gradient that is no number; the model is unchanged.
    """
    count = subject.layers
    middle = list(range(count // 3, count // 3 + max(1, count // 3)))
    chosen = middle if layers is None else [layers] if isinstance(layers, int) else sorted(set(layers))
    requests, matrices = as_facts(facts), down_projections(subject, chosen)
    rows = rows_of(subject, requests)
    if sum(len(row.places) for row in rows) < 2:
        raise InputError(
            "UltraEdit normalises over positions, but one fact of one token has a single; give more facts."
        )
    seen: list[list[Factors]] = [[] for _ in matrices]
    edit, deltas = WeightEdit(), [torch.zeros_like(layer.matrix) for layer in matrices]
    for start in range(0, len(rows), per_turn):
        turn = _turn(subject.with_(edit) if edit.names else subject, rows[start : start + per_turn], matrices)
        for i, new in enumerate(turn):
            seen[i].append(new)
            deltas[i] = deltas[i] + _shift(new, seen[i], rate, ridge)
        edit = _edit(subject, matrices, deltas)
    return accounted(subject, "UltraEdit", requests, edit, neutral, seed)


def _turn(subject: Subject, rows: Sequence[Wanted], layers: Sequence[DownProjection]) -> list[Factors]:
    """Return per layer the keys and gradients of all rows at the positions that predict their targets."""
    found = edit_factors(subject, rows, layers)
    return [
        Factors(*(torch.cat([own[i][part][list(row.places)] for own, row in zip(found, rows, strict=True)]).double()
                  for part in (0, 1)))
        for i in range(len(layers))
    ]  # fmt: skip


def _shift(new: Factors, seen: Sequence[Factors], rate: float, ridge: float) -> torch.Tensor:
    """Return the change [dimension, neuron] that the keys and gradients of one turn ask for."""
    normal = []
    for part in (0, 1):
        every = torch.cat([one[part] for one in seen])
        deviation = every.std(0, correction=0)
        spread = deviation.where(deviation > 0, torch.ones_like(deviation))  # what never varied is its mean: 0
        normal.append((new[part] - every.mean(0)) / spread)
    keys, gradients = normal
    shifts = -rate * keys.square().mean(1, keepdim=True) * gradients
    second = new.keys.T @ new.keys + ridge * torch.eye(new.keys.shape[1]).to(new.keys)
    return torch.linalg.solve(second, new.keys.T @ shifts).T


def _edit(subject: Subject, layers: Sequence[DownProjection], deltas: Sequence[torch.Tensor]) -> WeightEdit:
    own = {
        layer.name: (delta.T if layer.transposed else delta).to(torch.promote_types(layer.weight.dtype, torch.float32))
        for layer, delta in zip(layers, deltas, strict=True)
    }
    return WeightEdit(
        deltas={name: delta.cpu().contiguous().numpy() for name, delta in own.items()},
        weights_hash=subject.weights_hash(),
    )
