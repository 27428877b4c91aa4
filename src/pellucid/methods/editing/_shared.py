"""What editors of feed-forward matrices share: their facts, layers and keys, and the account they give of an edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from pellucid.core.errors import CapabilityError
from pellucid.core.facts import Fact, as_facts
from pellucid.core.results import Evidence, WeightEdit
from pellucid.engine.down_projection import DownProjection, down_projections
from pellucid.engine.edit_account import accounted
from pellucid.engine.edit_layers import PLACES, strongest, traced_effects
from pellucid.engine.edit_layers import evidence as tracing
from pellucid.engine.edit_requests import Place, Wordings, require_decoder, wordings
from pellucid.engine.own_text import own_prefixes
from pellucid.engine.planning import in_batches
from pellucid.engine.value_optimisation import Optimised
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

PREFIX_LENGTH = 10


Token = Literal["traced", "subject", "last"]


@dataclass(frozen=True)
class Asked:
    """Facts with their wordings at a token, the matrices to edit in ascending order, and how these were found."""

    facts: tuple[Fact, ...]
    token: Place
    wordings: list[Wordings]
    layers: list[DownProjection]
    evidence: tuple[Evidence, ...] = ()


def ask(
    subject: Subject, facts: Any, layers: Sequence[int] | int | None, token: Token, count: int,
    prefixes: Sequence[str] | None, seed: int,
) -> Asked:  # fmt: skip
    """Return the facts on this model.

    `layers` None means the `count` neighbouring layers where causal tracing finds most, `token` "traced" the token
    where it finds them.
    """
    requests = as_facts(facts)
    require_decoder(subject)
    chosen = None if layers is None else sorted({layers} if isinstance(layers, int) else set(layers))
    projections = down_projections(subject, [0] if chosen is None else chosen)  # refuse before anything is run
    evidence: tuple[Evidence, ...] = ()
    if chosen is None or token == "traced":
        effects = traced_effects(subject, requests, seed=seed)
        if token == "traced":
            token = PLACES[int((effects if chosen is None else effects[:, chosen]).max(1).argmax())]
        if chosen is None:
            chosen = strongest(effects[PLACES.index(token)], count)
            projections = down_projections(subject, chosen)
        evidence = (tracing(effects, token, chosen),)
    own = own_prefixes(subject, 5, PREFIX_LENGTH, seed) if prefixes is None else tuple(prefixes)
    return Asked(requests, token, wordings(subject, requests, own, token), projections, evidence)


@torch.no_grad()
def values_at(subject: Subject, written: Sequence[Wordings], sites: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what stands at the edited token in every wording: per site [edits, wordings, size], float64."""
    rows = [row for one in written for row in one.rows]

    def run(batch: list[int]) -> list[list[torch.Tensor]]:
        output = forward(subject, [Row(rows[i].ids) for i in batch], capture=list(sites), stop=True)
        return [[output.row(site, n)[rows[i].position].double() for site in sites] for n, i in enumerate(batch)]

    found = in_batches(range(len(rows)), [len(row.ids) for row in rows], run)
    each = len(written[0].rows)
    return {
        site: torch.stack([row[at] for row in found]).unflatten(0, (len(written), each))
        for at, site in enumerate(sites)
    }


Change = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def spread(
    subject: Subject, asked: Asked, site: str, found: Optimised, share: Callable[[int], float], change: Change
) -> tuple[WeightEdit, Evidence]:
    """Bring what stands at `site`, of the last layer, to the optimised value by changing each layer in turn.

    Args:
        subject: the model before the edit.
        asked: facts and layers.
        site: where the values were optimised, "resid_post" or "mlp.out" of the last layer.
        found: the values.
        share: maps the number of layers left, this one included, to the share of the residual that this layer takes.
        change: maps (number of the layer, keys [facts, neuron], residual [facts, dimension]) to the factors
            [dimension, rank] and [rank, neuron] of the matrix's change.

    Returns:
        The edit of all layers, and how much of the residual is left at the end.

    Raises:
        CapabilityError: blocks whose feed-forward output passes a norm before it is added.
    """
    for at in asked.layers:
        if not at.value.endswith("mlp.out") or subject.need_layout().stacks[""].norm != "pre":
            raise CapabilityError(
                f"Spreading an edit over layers was asked of {subject.name}, whose feed-forward outputs pass a norm "
                "before they are added, so that a residual is not theirs to divide; use rome."
            )
    scale = asked.layers[-1].scale if site.endswith("resid_post") else 1.0
    wanted = (found.start[site] + found.vectors[site]).double()
    factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    on, first = subject, 0.0
    for number, at in enumerate(asked.layers):
        standing = values_at(on, asked.wordings, [site, at.key])
        residual = wanted - standing[site][:, 0]
        first = first or float(residual.norm())
        left, right = change(number, standing[at.key].mean(1), share(len(asked.layers) - number) * residual / scale)
        factors[at.name] = at.factors(left, right)
        on = subject.with_(WeightEdit(factors=factors, weights_hash=subject.weights_hash()))
    rest = float((wanted - values_at(on, asked.wordings, [site])[site][:, 0]).norm()) / max(first, 1e-300)
    summary = f"Of the change wanted behind layer {asked.layers[-1].layer}, {rest:.1%} is missing in the edited model."
    edit = WeightEdit(factors=factors, weights_hash=subject.weights_hash())
    return edit, Evidence("residual", summary, {"missing": rest})


def solved(other: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return K^T (other + K K^T)^-1 for keys K^T [facts, neuron]: [facts, neuron], by the small system of the facts.

    Woodbury: K^T (A + K K^T)^-1 = (1 + K^T A^-1 K)^-1 K^T A^-1.
    """
    inner = torch.linalg.solve(other, keys.T).T
    return torch.linalg.solve(torch.eye(len(keys)).to(keys) + inner @ keys.T, inner)


def finished(
    subject: Subject, name: str, asked: Asked, edit: WeightEdit, neutral: Sequence[Any] | None, seed: int
) -> WeightEdit:
    """Return the edit with its title and account: what it does to the facts, and what beside."""
    whole = replace(edit, evidence=(*asked.evidence, *edit.evidence))
    return accounted(subject, name, asked.facts, whole, neutral, seed)


def optimisation(found: Optimised) -> Evidence:
    """Return the loss of the values at its first and last step, with the mean curve over edits."""
    last = [column[~np.isnan(column)][-1] for column in found.losses.T]
    steps = np.arange(len(found.losses))
    held = np.array([[column[~np.isnan(column)][: step + 1][-1] for column in found.losses.T] for step in steps])
    return Evidence(
        "value optimisation",
        f"The mean loss went from {found.losses[0].mean():.3g} to {np.mean(last):.3g}.",
        {"first": float(found.losses[0].mean()), "last": float(np.mean(last)), "worst": float(np.max(last))},
        {"x": tuple(map(float, steps)), "mean loss": tuple(map(float, held.mean(1)))},
    )
