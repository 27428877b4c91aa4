"""MEND: train a small network that turns the gradient of a fact into an edit that holds and stays local."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Learned
from pellucid.engine.down_projection import DownProjection, middle_matrices
from pellucid.engine.edit_cases import EditCase, as_cases, nearby
from pellucid.engine.edit_factors import Factors, edit_factors, rows_of, wanted_rows
from pellucid.engine.edit_losses import losses_under, new_weights, next_log_probs
from pellucid.engine.edit_texts import drawn
from pellucid.engine.gradient_editor import APPLY, edited_matrices, new_editor, trained_parts
from pellucid.engine.training_account import training_account
from pellucid.models.subject import Subject


@method(
    rows=("EDT-2",),
    paper="arXiv:2110.11309",
    takes="dataset",
    produces="learned",
    needs=("weights", "gradients", "activations"),
)
def mend(
    subject: Subject, facts: Sequence[Any], *, layers: Sequence[int] | int | None = None, hidden: Positive = 64,
    steps: Positive = 100, per_step: Positive = 4, together: Positive = 1, rate: PositiveFloat = 1e-3,
    first: PositiveFloat = 1e-2, locality: NonNegativeFloat = 1.0, seed: Count = 0,
) -> Learned:  # fmt: skip
    """Train an editor that maps the key and the gradient of a fact to those of a better step.

    The gradient of a matrix is a sum over positions of gradient g times key u; a network (u, g) -> (u~, g~), one for
    all layers with a scale and an offset of its own per layer, begins as the identity, and W' = W - rate_l sum g~ u~'.
    Trained by Adam on -log p of the new answer under W', behind the prompt or a paraphrase, plus `locality` times
    KL(before | after) behind neighbours (Mitchell et al. 2022, arXiv:2110.11309). An approximation: a step that was
    learned on these facts. Weights of the model never change.

    Use it with `pellucid.engine.gradient_editor.write(subject, editor, facts)`, which returns a `WeightEdit`.

    Args:
        subject: a decoder with a language-model head.
        facts: facts to train on, others than those to be edited; `EditCase` values with paraphrases and neighbours.
        layers: feed-forward layers to edit; None means two in the middle.
        hidden: size of the network's hidden layer.
        steps: of Adam.
        per_step: edits per step.
        together: facts of one edit; train with as many as will be written at once, or their steps add up to a change
            that the editor never saw.
        rate: of Adam.
        first: the learning rate of the edits that the training starts from.
        locality: weight of what neighbours lose.
        seed: of the start and of the order of facts.

    Returns:
        Learned, with the loss over the training in its evidence.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError, EditError: fewer than two facts; a tied matrix, or a loss that is no number.
    """
    cases = as_cases(facts)
    if len(cases) < 2:
        raise InputError(f"MEND trains on facts, but {len(cases)} was given; give a dozen or more.")
    matrices = middle_matrices(subject, layers)
    factors = edit_factors(subject, rows_of(subject, [case.fact for case in cases]), matrices)
    generator = torch.Generator().manual_seed(seed)
    editor = new_editor(factors, hidden, first, generator)
    curve = _trained(subject, editor, list(zip(cases, factors, strict=True)), matrices,
                     (steps, per_step, together), (rate, locality), generator)  # fmt: skip
    return Learned(
        f"MEND: an editor of {len(matrices)} layers",
        tensors={name: tensor.detach().numpy() for name, tensor in editor.items()}, apply=APPLY,
        site="mlp.out", settings={"layers": [matrix.layer for matrix in matrices]},
    ).with_evidence(training_account(curve, f"{len(cases)} facts"))  # fmt: skip


def _trained(
    subject: Subject, editor: dict[str, torch.Tensor], every: Sequence[tuple[EditCase, Sequence[Factors]]],
    matrices: Sequence[DownProjection], counts: tuple[int, int, int], weights: tuple[float, float],
    generator: torch.Generator,
) -> list[float]:  # fmt: skip
    """Train an editor on facts and what each asks of the matrices; return the loss of each step."""
    (steps, per_step, together), (rate, locality) = counts, weights
    for tensor in trained_parts(editor):
        tensor.requires_grad_()
    optimiser, curve = torch.optim.Adam(trained_parts(editor), lr=rate), list[float]()
    for _ in range(steps):
        optimiser.zero_grad()
        total = 0.0
        groups = torch.randperm(len(every), generator=generator)[: per_step * together].split(together)
        for group in groups:
            chosen = [every[i] for i in group.tolist()]
            loss = _loss(subject, editor, chosen, matrices, locality, generator) / len(groups)
            loss.backward()
            total += float(loss.detach())
        if not total < float("inf"):
            raise EditError("The loss of the editor became NaN or infinite; lower rate or first, or use float32.")
        torch.nn.utils.clip_grad_norm_(trained_parts(editor), 1.0)
        optimiser.step()
        curve.append(total)
    return curve


def _loss(
    subject: Subject, editor: dict[str, torch.Tensor], chosen: Sequence[tuple[EditCase, Sequence[Factors]]],
    matrices: Sequence[DownProjection], locality: float, generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Return the loss of one edit, a mean over its facts: each answer in some wording, and what one neighbour loses."""
    asked, kept = [], []
    for case, _ in chosen:
        prompts, near = [case.fact.text, *case.paraphrases], nearby([case])
        asked += wanted_rows(subject, [(drawn(prompts, generator), case.fact.target)])
        kept += [subject.encode(drawn(near, generator).prompt).ids] if near and locality else []
    changes = edited_matrices(editor, [own for _, own in chosen], matrices)
    answers, drift = losses_under(
        subject, new_weights(matrices, changes), asked, kept, next_log_probs(subject, kept)
    )  # fmt: skip
    return answers + locality * drift
