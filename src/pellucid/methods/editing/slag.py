"""SLAG: train an optimiser whose repeated steps update beliefs in sequence, in all wordings, and leave others alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.belief_updates import APPLY, nothing, updated
from pellucid.engine.down_projection import DownProjection, middle_matrices
from pellucid.engine.edit_cases import EditCase, as_cases
from pellucid.engine.edit_losses import losses_under, new_weights
from pellucid.engine.edit_texts import drawn, edit_texts
from pellucid.engine.hyper_editor import HyperNetwork, learned, new_network, requests
from pellucid.engine.planning import check_cancelled
from pellucid.engine.training_account import training_account
from pellucid.models.subject import Subject


@method(
    rows=("EDT-3",),
    paper="arXiv:2111.13654",
    takes="dataset",
    produces="learned",
    needs=("weights", "gradients", "activations", "generate"),
)
def slag(
    subject: Subject, facts: Sequence[Any], *, layers: Sequence[int] | int | None = None, hidden: Positive = 64,
    steps: Positive = 60, sequence: Positive = 3, updates: Positive = 3, rate: PositiveFloat = 3e-3,
    first: PositiveFloat = 0.01, locality: NonNegativeFloat = 1.0, seed: Count = 0,
) -> Learned:  # fmt: skip
    """Train a network that turns the gradients of facts into updates that are sequential, local and general.

    The network is that of KnowledgeEditor. At each step some facts are updated one after the other, each `updates`
    times on the weights so far, and then all of them are judged on the weights at the end: the mean of -log p behind
    the prompt, behind a paraphrase and of what follows from the fact, plus `locality` times KL(before | after) behind
    other prompts (Hase et al. 2021, arXiv:2111.13654; Adam). An approximation: gradients count as constants, so the
    network does not see how an update moves the gradient of the next. Weights of the model never change.

    Use it with `pellucid.engine.belief_updates.update_beliefs(subject, editor, facts)`, which returns a `WeightEdit`.

    Args:
        subject: a decoder with a language-model head.
        facts: facts to train on, others than those to be updated; `EditCase` values with paraphrases, neighbours and
            consequences.
        layers: feed-forward layers to change; None means two in the middle.
        hidden: size of the network's LSTM in each direction.
        steps: of Adam.
        sequence: facts that are updated one after the other in a step.
        updates: of each fact.
        rate: of Adam.
        first: share of a matrix's norm by which an update moves it along the gradient at the start, below 1.
        locality: weight of what other prompts lose.
        seed: of the start and of the order of facts.

    Returns:
        Learned, with the loss over the training in its evidence.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError, EditError: fewer than two facts, or `first` of 1; a tied matrix, or a loss that is no number.
    """
    cases = as_cases(facts)
    if len(cases) < 2 or first >= 1:
        raise InputError(
            f"SLAG trains on two or more facts from a share below 1, but got {len(cases)} and first={first:g}; give a "
            "dozen facts."
        )
    matrices = middle_matrices(subject, layers)
    network = new_network(subject, matrices, hidden, first, seed)
    losses, drifts = _trained(subject, network, matrices, cases, (steps, sequence, updates), (rate, locality), seed)
    found = learned(network, matrices, f"SLAG: an optimiser of {len(matrices)} layers", APPLY)
    series = {"x": tuple(map(float, range(len(drifts)))), "drift": tuple(drifts)}
    summary = f"Behind prompts to be kept, {sequence} facts together moved the model by {drifts[-1]:.3g} nats at last."
    return replace(found, settings={**found.settings, "updates": updates}).with_evidence(
        training_account(losses, f"{len(cases)} facts"), Evidence("drift", summary, {"last": drifts[-1]}, series)
    )


def _trained(
    subject: Subject, network: HyperNetwork, matrices: Sequence[DownProjection], cases: Sequence[EditCase],
    counts: tuple[int, int, int], weights: tuple[float, float], seed: int,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Train the network and return the loss and the drift of each step."""
    (steps, sequence, updates), (rate, locality) = counts, weights
    texts, asked = edit_texts(subject, cases), requests(subject, [case.fact for case in cases])
    optimiser, generator = torch.optim.Adam(network.parameters(), lr=rate), torch.Generator().manual_seed(seed)
    losses, drifts = list[float](), list[float]()
    for _ in range(steps):
        check_cancelled()
        chosen = torch.randperm(len(cases), generator=generator)[:sequence].tolist()
        total = nothing(subject, matrices)
        for i in chosen:
            total, _ = updated(subject, network, matrices, (asked[i], texts.worded[i][0]), total, updates)
        judged = [texts.worded[i][0] for i in chosen]
        judged += [drawn(own[i], generator) for own in (texts.worded, texts.following) for i in chosen if own[i]]
        kept = [drawn(texts.kept[i], generator) for i in chosen]
        loss, drift = losses_under(subject, new_weights(matrices, total), judged, kept, texts.before)
        whole = loss + locality * drift
        if not bool(torch.isfinite(whole)):
            raise EditError("The loss of the optimiser became NaN or infinite; lower rate or first, or use float32.")
        optimiser.zero_grad()
        whole.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(whole.detach()))
        drifts.append(float(drift.detach()))
    return losses, drifts
