"""REMEDI: learn the map from what an attribute is to the change of an entity that gives it the attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, PositiveFloat
from pellucid.core.results import Learned
from pellucid.engine.backward import frozen
from pellucid.engine.continuations import following_ids
from pellucid.engine.edit_cases import as_cases
from pellucid.engine.edit_factors import loss_of
from pellucid.engine.entity_edits import APPLY, Described, attribute_vectors, described
from pellucid.engine.lens import stream_sites
from pellucid.engine.training_account import training_account
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject


@method(
    rows=("EDT-8",),
    paper="arXiv:2304.00740",
    takes="dataset",
    produces="learned",
    needs=("gradients", "activations"),
)
def remedi(
    subject: Subject, facts: Sequence[Any], *, layer: Count | None = None, steps: Positive = 100,
    per_step: Positive = 8, rate: PositiveFloat = 3e-3, prior: NonNegativeFloat = 0.2, decay: NonNegativeFloat = 1e-4,
    seed: Count = 0,
) -> Learned:  # fmt: skip
    """Learn W and b so that h + W a + b makes of an entity h one with the attribute a.

    h is the stream behind a block at the entity's last token in the prompt, a that of the target in the whole
    statement. Trained by Adam on -log p(target) - `prior` log(1 - p(true)), the latter for the true answer's
    first token, and `decay` times |W|^2 (Hernandez et al. 2023, arXiv:2304.00740, which adds a KL
    on other tokens of the context). An approximation: one affine map for all attributes, as good as it serves facts
    that it was not trained on. Weights of the model never change.

    Use it with `subject.with_(pellucid.engine.entity_edits.entity_edit(subject, editor, fact))`, an edit of one prompt.

    Args:
        subject: a decoder with a language-model head.
        facts: facts to train on, `Fact(prompt, subject, target, true)` or `EditCase` values.
        layer: the block; None means a third up.
        steps: of Adam.
        per_step: facts per step.
        rate: of Adam.
        prior: weight of the true answer's loss of probability.
        decay: weight of the map's size.
        seed: of the order of facts.

    Returns:
        Learned with `weight` [dimension, dimension] and `bias` [dimension].

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError, EditError: fewer than two facts, or an entity that is not in its prompt; a loss that is no number.
    """
    requests = [case.fact for case in as_cases(facts)]
    if len(requests) < 2:
        raise InputError(f"REMEDI trains on facts, but {len(requests)} was given; give a dozen or more.")
    rows = described(subject, requests)
    true = [following_ids(subject, fact.text, fact.true)[1] if fact.true else () for fact in requests]
    sites = stream_sites(subject, "resid_post")
    at = len(sites) // 3 if layer is None else layer
    site = sites[at] if at < len(sites) else f"blocks.{at}.resid_post"
    attributes = attribute_vectors(subject, rows, site)
    size = attributes.shape[1]
    weight = torch.zeros(size, size, dtype=attributes.dtype, device=attributes.device, requires_grad=True)
    bias = torch.zeros(size, dtype=attributes.dtype, device=attributes.device, requires_grad=True)
    optimiser, generator = torch.optim.Adam([weight, bias], lr=rate), torch.Generator().manual_seed(seed)
    curve = list[float]()
    for _ in range(steps):
        drawn = torch.randperm(len(rows), generator=generator)[:per_step].tolist()
        vectors = attributes[drawn] @ weight.T + bias
        loss = _loss(subject, site, [rows[i] for i in drawn], [true[i] for i in drawn], vectors, prior)
        loss = loss + decay * weight.square().sum()
        if not bool(torch.isfinite(loss)):
            raise EditError("The loss of the map became NaN or infinite; lower the rate, or load the model in float32.")
        optimiser.zero_grad()
        loss.backward()
        subject.count(backwards=len(drawn))
        optimiser.step()
        curve.append(float(loss.detach()))
    return _learned(site, weight, bias, curve, len(rows))


def _learned(site: str, weight: torch.Tensor, bias: torch.Tensor, curve: Sequence[float], facts: int) -> Learned:
    return Learned(
        "REMEDI: attributes added to entities", apply=APPLY, site=site,
        tensors={"weight": weight.detach().cpu().numpy(), "bias": bias.detach().cpu().numpy()},
    ).with_evidence(training_account(curve, f"{facts} facts"))  # fmt: skip


def _loss(
    subject: Subject, site: str, rows: Sequence[Described], true: Sequence[tuple[int, ...]], vectors: torch.Tensor,
    prior: float,
) -> torch.Tensor:  # fmt: skip
    """Return the mean loss of some facts whose entities are moved by the vectors."""
    batch = [
        Row((*row.prompt, *row.target[:-1]), edits=(Edit(site, "add", vector, {"position": row.position}),))
        for row, vector in zip(rows, vectors, strict=True)
    ]
    total = torch.zeros((), dtype=vectors.dtype, device=vectors.device)
    with frozen(subject.model), torch.enable_grad():
        logits = forward(subject, batch, grad=True).logits
        for i, (row, old) in enumerate(zip(rows, true, strict=True)):
            own = logits[i, len(row.prompt) - 1 : len(row.prompt) - 1 + len(row.target)]
            total = total + loss_of(own, row.target)
            if old and old[0] != row.target[0]:
                # -log(1 - p) of the old answer's first token: bounded once it is improbable.
                total = total - prior * torch.log1p(-own[0].softmax(-1)[old[0]].clamp(max=1 - 1e-6))
    return total / len(rows)
