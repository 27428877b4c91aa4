"""SERAC: keep facts in a memory, learn which prompts ask for them, and learn how to answer in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat
from pellucid.core.results import Learned
from pellucid.engine.backward import frozen
from pellucid.engine.edit_cases import EditCase, as_cases, nearby
from pellucid.engine.edit_factors import Wanted, loss_of, wanted_rows
from pellucid.engine.lens import stream_sites
from pellucid.engine.planning import check_cancelled
from pellucid.engine.scope_training import Tensors, scope_places, trained_scope
from pellucid.engine.scoped_memory import APPLY, additions, token_directions
from pellucid.engine.training_account import training_account
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject


@method(
    rows=("N-ED2",),
    paper="arXiv:2206.06520",
    takes="dataset",
    produces="learned",
    needs=("gradients", "activations"),
)
def serac(
    subject: Subject, facts: Sequence[Any], *, layer: Count | None = None, rank: Positive = 32,
    scope_steps: Positive = 200, steps: Positive = 60, per_step: Positive = 8, rate: PositiveFloat = 5e-3,
    seed: Count = 0,
) -> Learned:  # fmt: skip
    """Learn a scope and an answer, so that facts are edited by only being remembered.

    A place of the stream, behind a block, is in the scope of a remembered fact with the belief
    exp(-|A (x - e) / s|^2), e the stream where the fact's own prompt ends; A is trained by cross-entropy on paraphrases
    (inside) against neighbours, other facts and all other places (outside). In scope s (W u + b) is added, u the unit
    row of the unembedding of the remembered token, W and b trained on -log p behind all wordings with answers drawn
    among all that the facts name (Mitchell et al. 2022, arXiv:2206.06520). A smaller form than the paper's: scope
    classifier and counterfactual model there are language models of their own that read fact and prompt as text; here
    both are maps on the states of the model itself, and every position, not the prompt, is routed. Exact: where no
    belief exceeds the limit, everything is bit for bit as before. Weights never change.

    Use it with `subject.with_(pellucid.engine.scoped_memory.scoped_edit(subject, editor, facts))`: nothing is trained.

    Args:
        subject: a decoder with a language-model head.
        facts: facts to train on, others than those to be edited: `EditCase` values with paraphrases and neighbours.
        layer: the block; None means two thirds up.
        rank: rows of A.
        scope_steps: of Adam, for the scope.
        steps: of Adam, for the answer.
        per_step: prompts per step of the answer.
        rate: of Adam.
        seed: of the start and of the order of prompts.

    Returns:
        Learned with `scope` [rank, dimension], `mean` [dimension] and `deviation` of the states, `weight` [dimension,
        dimension] and `bias` [dimension] of the answer; its evidence has the shares inside and outside, and the loss.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: fewer than two facts, or none with a paraphrase.
        EditError: a loss that is no number.
        SiteError: no such layer.
    """
    cases = as_cases(facts)
    if len(cases) < 2 or not any(case.paraphrases for case in cases):
        raise InputError(
            f"SERAC learns its scope from paraphrases of several facts, but {len(cases)} facts with "
            f"{sum(len(case.paraphrases) for case in cases)} paraphrases were given; give a dozen EditCase values."
        )
    sites = stream_sites(subject, "resid_post")
    at = min(2 * len(sites) // 3, len(sites) - 1) if layer is None else layer
    site = sites[at] if at < len(sites) else f"blocks.{at}.resid_post"
    generator = torch.Generator().manual_seed(seed)
    found, inside = trained_scope(scope_places(subject, site, cases), rank, scope_steps, rate, generator)
    answer, curve = _answer(subject, site, cases, found, (steps, per_step, rate), generator)
    return Learned(
        f"SERAC: a scope and an answer from {len(cases)} facts",
        tensors={name: part.detach().cpu().numpy() for name, part in (found | answer).items()}, apply=APPLY, site=site,
    ).with_evidence(inside, training_account(curve, f"{len(cases)} facts"))  # fmt: skip


def _answer(
    subject: Subject, site: str, cases: Sequence[EditCase], scope: Tensors, how: tuple[int, int, float],
    generator: torch.Generator,
) -> tuple[Tensors, list[float]]:  # fmt: skip
    """Train the map from a token to the addition that makes it likely, beginning with its own direction."""
    steps, per_step, rate = how
    size, device = len(scope["mean"]), scope["mean"].device
    weight = torch.eye(size, dtype=scope["mean"].dtype, device=device).requires_grad_()
    bias = torch.zeros(size, dtype=weight.dtype, device=device).requires_grad_()
    parts, curve = {"weight": weight, "bias": bias, "deviation": scope["deviation"]}, list[float]()
    optimiser = torch.optim.Adam([weight, bias], lr=rate)
    prompts = [text for case in cases for text in (case.fact.text, *case.paraphrases)]
    known = [question.answer for question in nearby(cases)] + [case.fact.true for case in cases if case.fact.true]
    targets = list(dict.fromkeys([case.fact.target for case in cases] + known))
    for _ in range(steps):
        check_cancelled()
        drawn = [
            tuple(int(torch.randint(len(own), (1,), generator=generator)) for own in (prompts, targets))
            for _ in range(per_step)
        ]
        loss = _loss(subject, site, parts, wanted_rows(subject, [(prompts[i], targets[j]) for i, j in drawn]))
        if not bool(torch.isfinite(loss)):
            raise EditError("The loss of the answer became NaN or infinite; lower rate, or load the model in float32.")
        optimiser.zero_grad()
        loss.backward()
        subject.count(backwards=per_step)
        optimiser.step()
        curve.append(float(loss.detach()))
    return {"weight": weight.detach(), "bias": bias.detach()}, curve


def _loss(subject: Subject, site: str, parts: Tensors, rows: Sequence[Wanted]) -> torch.Tensor:
    """Return the mean loss of answers whose tokens are added where they are to be said."""
    size = len(parts["bias"])
    batch = [
        Row(row.ids, edits=(Edit(
            site, "add", additions(parts, token_directions(subject, row.target, size).to(parts["weight"])),
            {"position": list(row.places)},
        ),))
        for row in rows
    ]  # fmt: skip
    with frozen(subject.model), torch.enable_grad():
        logits = forward(subject, batch, grad=True).logits
        losses = [loss_of(logits[i, list(row.places)], row.target) for i, row in enumerate(rows)]
    return torch.stack(losses).mean()
