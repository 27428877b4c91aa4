"""Beliefs updated by a learned optimiser: several steps for each fact, one fact after the other (SLAG).

Hase et al. 2021 (arXiv:2111.13654).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.facts import as_facts
from pellucid.core.results import Evidence, Learned, WeightEdit
from pellucid.engine.borrowed_weights import borrowed_weights
from pellucid.engine.continuations import forced
from pellucid.engine.down_projection import DownProjection, weight_edit
from pellucid.engine.edit_factors import Wanted, edit_factors, rows_of
from pellucid.engine.edit_losses import new_weights
from pellucid.engine.editor_check import need_editor
from pellucid.engine.hyper_editor import HyperNetwork, Request, changes, network_of, requests
from pellucid.engine.planning import check_cancelled

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

APPLY = "belief_updates"


def nothing(subject: Subject, matrices: Sequence[DownProjection]) -> list[torch.Tensor]:
    """Return the changes [dimension, neuron] of matrices that nobody changed."""
    return [torch.zeros(matrix.matrix.shape, device=subject.input_device) for matrix in matrices]


def updated(
    subject: Subject, network: HyperNetwork, matrices: Sequence[DownProjection], asked: tuple[Request, Wanted],
    total: Sequence[torch.Tensor], times: int, *, until_said: bool = False,
) -> tuple[list[torch.Tensor], int]:  # fmt: skip
    """Return the changes of the matrices after some updates for one fact, and how many were made.

    Each update is what the network makes of the gradient at the weights changed so far. The gradient is a constant:
    the changes are differentiable in the network, but not through what it did to later gradients.

    Args:
        subject: the model, which comes back untouched.
        network: the learned optimiser.
        matrices: what it changes.
        asked: the fact as the network reads it, and as a row.
        total: the changes before.
        times: of updates.
        until_said: stop as soon as every token of the new answer is the likeliest.
    """
    request, row = asked
    found = list(total)
    for number in range(times):
        with borrowed_weights(subject, new_weights(matrices, [change.detach() for change in found])):
            if until_said and forced(subject, [(request.prompt, request.new)])[0].exact:
                return found, number
            [factors] = edit_factors(subject, [row], matrices)
        steps = changes(subject, network, request, factors, matrices)
        found = [before + step for before, step in zip(found, steps, strict=True)]
    return found, times


@torch.no_grad()
def update_beliefs(subject: Subject, editor: Learned, facts: Any, *, times: int | None = None) -> WeightEdit:
    """Return the weight edit of updating facts one after the other, each on the model that the ones before left.

    Args:
        subject: the model that the editor was trained for.
        editor: what slag returned.
        facts: `Fact(prompt, subject, target)` or a list of them, in this order.
        times: most updates of one fact, which end as soon as it is said; None means as many as in the training.

    Returns:
        WeightEdit, whose evidence says how many updates the facts took and how many of them are said at the end.

    Raises:
        EditError: something else than such an editor, or one of other weights.
    """
    need_editor(subject, editor, APPLY, "slag")
    network, matrices = network_of(subject, editor)
    most = int(editor.settings["updates"]) if times is None else times
    told = as_facts(facts)
    asked, total, taken = requests(subject, told), nothing(subject, matrices), list[int]()
    for pair in zip(asked, rows_of(subject, told), strict=True):
        check_cancelled()
        total, number = updated(subject, network, matrices, pair, total, most, until_said=True)
        taken.append(number)
    with borrowed_weights(subject, new_weights(matrices, total)):
        said = [one.exact for one in forced(subject, [(request.prompt, request.new) for request in asked])]
    values = {"updates": sum(taken) / len(taken), "said": sum(said) / len(said)}
    summary = f"{len(told)} facts took {values['updates']:.3g} updates each, and {values['said']:.0%} of them are said "
    summary += "at the end."
    found = weight_edit(subject, matrices, total, f"SLAG: {len(told)} facts")
    return found.with_evidence(Evidence("updates", summary, values))
