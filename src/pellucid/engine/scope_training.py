"""What a memory's scope is trained on, and its training: SERAC's, on states of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from pellucid.core.errors import EditError
from pellucid.core.results import Evidence
from pellucid.engine.edit_cases import EditCase, nearby
from pellucid.engine.edit_factors import wanted_rows
from pellucid.engine.scoped_memory import distances, states_of

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Tensors = dict[str, torch.Tensor]


class ScopePlaces(NamedTuple):
    """States that train the scope, [number, dimension] each, and which of `reworded` is in the scope of which entry."""

    entries: torch.Tensor
    reworded: torch.Tensor
    own: torch.Tensor
    near: torch.Tensor
    others: torch.Tensor


def scope_places(subject: Subject, site: str, cases: Sequence[EditCase]) -> ScopePlaces:
    """Return the states of all wordings and neighbours; an entry stands for each token of each target."""
    asked = [(i, text) for i, case in enumerate(cases) for text in (case.fact.text, *case.paraphrases)]
    rows = wanted_rows(subject, [(text, cases[i].fact.target) for i, text in asked])
    number: dict[tuple[int, int], int] = {}
    entries, reworded, own, others = list[torch.Tensor](), list[torch.Tensor](), list[int](), list[torch.Tensor]()
    for (i, text), row, states in zip(asked, rows, states_of(subject, [row.ids for row in rows], site), strict=True):
        others.append(states[: row.prompt - 1])
        for place, state in enumerate(states[row.prompt - 1 :]):
            if text == cases[i].fact.text:
                number[i, place] = len(entries)
                entries.append(state)
            elif (i, place) in number:  # a wording may part the answer into more tokens
                reworded.append(state)
                own.append(number[i, place])
    near = states_of(subject, [subject.encode(question.prompt).ids for question in nearby(cases)], site)
    ends = [states[-1:] for states in near]
    return ScopePlaces(
        torch.stack(entries), torch.stack(reworded), torch.tensor(own, device=entries[0].device),
        torch.cat([entries[0].new_zeros(0, len(entries[0])), *ends]), torch.cat(others),
    )  # fmt: skip


def trained_scope(
    places: ScopePlaces, rank: int, steps: int, rate: float, generator: torch.Generator
) -> tuple[Tensors, Evidence]:
    """Train the scope on states alone; the model is not run."""
    ends = torch.cat([places.entries, places.reworded])
    found = {"mean": ends.mean(0), "deviation": (ends - ends.mean(0)).square().sum(1).mean().sqrt()}
    start = torch.randn(rank, ends.shape[1], generator=generator) / rank**0.5
    found["scope"] = start.to(ends).requires_grad_()
    optimiser = torch.optim.Adam([found["scope"]], lr=rate)
    for _ in range(steps):
        loss = _scope_loss(found, places)
        if not bool(torch.isfinite(loss)):
            raise EditError("The loss of the scope became NaN or infinite; lower rate, or load the model in float32.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found["scope"] = found["scope"].detach()
    values = {}
    for name, states in (("paraphrases", places.reworded), ("neighbours", places.near), ("elsewhere", places.others)):
        belief = torch.exp(-distances(found, places.entries, states))
        best = belief.max(1)
        hit = best.values > 0.5
        right = hit & (best.indices == places.own) if name == "paraphrases" else ~hit
        values[name] = float(right.double().mean()) if len(states) else 1.0
    summary = f"Of the facts trained on, {values['paraphrases']:.0%} of the paraphrases fall into the scope of their "
    summary += f"own fact and {values['neighbours']:.0%} of the neighbours into none."
    return found, Evidence("scope", summary, values)


def _scope_loss(parts: Tensors, places: ScopePlaces) -> torch.Tensor:
    """Return the cross-entropy of the beliefs: paraphrases, what is near, and everything else count alike."""
    inner = distances(parts, places.entries, places.reworded)
    mine = torch.nn.functional.one_hot(places.own, len(places.entries)).bool()
    outer = torch.cat([inner[~mine], distances(parts, places.entries, places.near).flatten()])
    loss = inner[mine].mean()  # -log of the belief
    for apart in (outer, distances(parts, places.entries, places.others).flatten()):
        if len(apart):
            loss = loss - torch.log(-torch.expm1(-apart.clamp(min=1e-6))).mean()
    return loss
