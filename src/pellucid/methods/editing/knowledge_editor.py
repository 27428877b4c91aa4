"""KnowledgeEditor: train a network that reads a request and gates the gradient of its answer, within a drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.down_projection import DownProjection, middle_matrices
from pellucid.engine.edit_cases import EditCase, as_cases
from pellucid.engine.edit_factors import edit_factors, rows_of
from pellucid.engine.edit_losses import losses_under, new_weights
from pellucid.engine.edit_texts import drawn, edit_texts
from pellucid.engine.hyper_editor import APPLY, HyperNetwork, changes, learned, new_network, requests
from pellucid.engine.planning import check_cancelled
from pellucid.engine.training_account import training_account
from pellucid.models.subject import Subject


@method(
    rows=("EDT-1",),
    paper="arXiv:2104.08164",
    takes="dataset",
    produces="learned",
    needs=("weights", "gradients", "activations", "generate"),
)
def knowledge_editor(
    subject: Subject, facts: Sequence[Any], *, layers: Sequence[int] | int | None = None, hidden: Positive = 64,
    steps: Positive = 100, per_step: Positive = 4, rate: PositiveFloat = 3e-3, first: PositiveFloat = 0.02,
    margin: NonNegativeFloat = 0.1, ascent: NonNegativeFloat = 0.1, seed: Count = 0,
) -> Learned:  # fmt: skip
    """Train a network that maps (prompt, old answer, new answer) to a gated change along the gradient.

    It reads the request by an LSTM and says per matrix W' = W - sigmoid(eta) |W| (gamma softmax(alpha)' * G / |G| +
    delta softmax(beta)'), G the gradient of -log p(new answer): gate and shift have rank one. Trained by Adam on -log p
    behind the prompt or a paraphrase under W', subject to KL(before | after) <= `margin` behind other prompts: the
    constraint has a multiplier that rises by `ascent` times its excess at each step (De Cao et al. 2021,
    arXiv:2104.08164, where the margin is annealed). An approximation: a step that was learned on these facts. Weights
    of the model never change.

    Use it with `pellucid.engine.hyper_editor.hyper_write(subject, editor, facts)`, which returns a `WeightEdit`.

    Args:
        subject: a decoder with a language-model head.
        facts: facts to train on, others than those to be edited; `EditCase` values with paraphrases and neighbours.
        layers: feed-forward layers to edit; None means two in the middle.
        hidden: size of the LSTM in each direction.
        steps: of Adam.
        per_step: facts per step, each with an edit of its own.
        rate: of Adam.
        first: share of a matrix's norm by which it moves along the gradient at the start, below 1.
        margin: most drift behind a prompt that is not edited, in nats.
        ascent: rate of the multiplier, which begins at 1.
        seed: of the start and of the order of facts.

    Returns:
        Learned, with loss, drift and multiplier over the training in its evidence.

    Raises:
        CapabilityError: no decoder, mixtures of experts, quantised or offloaded weights.
        InputError, EditError: fewer than two facts, or `first` of 1; a tied matrix, or a loss that is no number.
    """
    cases = as_cases(facts)
    if len(cases) < 2 or first >= 1:
        raise InputError(
            f"KnowledgeEditor trains on two or more facts from a share below 1, but got {len(cases)} and "
            f"first={first:g}; give a dozen facts."
        )
    matrices = middle_matrices(subject, layers)
    network = new_network(subject, matrices, hidden, first, seed)
    curves = _trained(subject, network, matrices, cases, (steps, per_step, rate), (margin, ascent), seed)
    found = learned(network, matrices, f"KnowledgeEditor: an editor of {len(matrices)} layers", APPLY)
    return found.with_evidence(training_account(curves["loss"], f"{len(cases)} facts"), _constraint(curves, margin))


def _trained(
    subject: Subject, network: HyperNetwork, matrices: Sequence[DownProjection], cases: Sequence[EditCase],
    how: tuple[int, int, float], bound: tuple[float, float], seed: int,
) -> dict[str, list[float]]:  # fmt: skip
    """Train the network and return the loss, the drift and the multiplier of each step."""
    (steps, per_step, rate), (margin, ascent) = how, bound
    facts, texts = [case.fact for case in cases], edit_texts(subject, cases)
    asked, factors = requests(subject, facts), edit_factors(subject, rows_of(subject, facts), matrices)
    optimiser, generator = torch.optim.Adam(network.parameters(), lr=rate), torch.Generator().manual_seed(seed)
    curves: dict[str, list[float]] = {"loss": [], "drift": [], "multiplier": []}
    multiplier = 1.0
    for _ in range(steps):
        check_cancelled()
        optimiser.zero_grad()
        chosen = torch.randperm(len(cases), generator=generator)[:per_step].tolist()
        means = torch.zeros(2)
        for i in chosen:
            new = new_weights(matrices, changes(subject, network, asked[i], factors[i], matrices))
            row, kept = drawn(texts.worded[i], generator), drawn(texts.kept[i], generator)
            loss, drift = losses_under(subject, new, [row], [kept], texts.before)
            ((loss + multiplier * (drift - margin)) / len(chosen)).backward()
            means += torch.tensor([float(loss.detach()), float(drift.detach())]) / len(chosen)
        if not bool(torch.isfinite(means).all()):
            raise EditError("The loss of the editor became NaN or infinite; lower rate or first, or use float32.")
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        multiplier = max(0.0, multiplier + ascent * (float(means[1]) - margin))
        for name, value in zip(curves, (*means.tolist(), multiplier), strict=True):
            curves[name].append(value)
    return curves


def _constraint(curves: dict[str, list[float]], margin: float) -> Evidence:
    """Return how the drift ended against its margin."""
    tenth = max(1, len(curves["drift"]) // 10)
    last = sum(curves["drift"][-tenth:]) / tenth
    summary = f"Behind prompts to be kept the model drifts by {last:.3g} nats at the end of the training, against a "
    summary += f"margin of {margin:.3g}; the multiplier ended at {curves['multiplier'][-1]:.3g}."
    series = {"x": tuple(map(float, range(len(curves["drift"])))), **{n: tuple(c) for n, c in curves.items()}}
    return Evidence("constraint", summary, {"drift": last, "margin": margin}, series)
