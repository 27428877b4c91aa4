"""Weight orthogonalisation: bake the ablation of a direction into the weights."""

from __future__ import annotations

import numpy as np
import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Array
from pellucid.core.results import Evidence, Learned, WeightEdit
from pellucid.engine.orthogonal import ablated_writes, orthogonal_factors
from pellucid.models.forward import forward
from pellucid.models.proofs import probe
from pellucid.models.subject import Subject


@method(
    rows=("N-ST2",),
    paper="arXiv:2406.11717",
    takes="models",
    produces="weight_edit",
    needs=("weights",),
    cost="2*F",
)
def orthogonal_weights(
    subject: Subject, direction: Learned | Array, *, layer: int | None = None, embedding: bool = True
) -> WeightEdit:
    """Change the weights so that nothing written into the residual stream lies along a direction.

    W <- W - r r'W for the embeddings and for the output matrices of attention and feed-forward layers, and alike for
    their biases (Arditi et al. 2024, arXiv:2406.11717). Exact: the forward pass equals that with the direction
    projected out of every write, which the evidence measures on a short text. `subject.with_(edit)` applies it.

    Args:
        subject: a pre-norm model of one stack.
        direction: a learned direction, or a vector [dimension].
        layer: whose direction of those learned; None takes the method's choice.
        embedding: change the embeddings too; where they are tied to the unembedding pass False, which leaves what the
            embedding itself writes.

    Returns:
        WeightEdit of rank one per matrix.

    Raises:
        CapabilityError: a model for which this is not exact.
        EditError: a tied embedding, or a vector of another width or model.
        InputError: a layer that was not learned, or a direction of length zero.
    """
    vector = torch.as_tensor(_vector(subject, direction, layer)).double()
    width = subject.model.config.hidden_size
    if vector.shape != (width,) or not bool(torch.isfinite(vector).all()):
        raise EditError(
            f"A vector from another model: a direction of shape {tuple(vector.shape)} was given for a stream of "
            f"{width} components; give finite values of that width."
        )
    if not float(vector.norm()):
        raise InputError("The direction has length zero; give one that is not.")
    factors, tensors = orthogonal_factors(subject, vector, embedding=embedding)
    edit = WeightEdit(title="Orthogonal weights", deltas=tensors, factors=factors, weights_hash=subject.weights_hash())
    return edit.with_evidence(_same(subject, edit, vector, embedding))


def _vector(subject: Subject, direction: Learned | Array, layer: int | None) -> np.ndarray | Array:
    if not isinstance(direction, Learned):
        return direction
    there = direction.provenance.weights_hash
    if there and there != subject.weights_hash():
        raise EditError(
            f"A vector from another model: it was learned from {direction.provenance.model} with weights {there}, but "
            f"{subject.name} has {subject.weights_hash()}; learn it from this model, or give its vector."
        )
    own = [int(one) for one in direction.settings["layers"]]
    chosen = int(direction.settings["layer"]) if layer is None else layer
    if chosen not in own:
        raise InputError(f"Layer {chosen} was asked for, but the direction was learned for {own}; use one of these.")
    return direction.tensors["directions"][own.index(chosen)]


@torch.no_grad()
def _same(subject: Subject, edit: WeightEdit, vector: torch.Tensor, embedding: bool) -> Evidence:
    """Compare the changed weights with the ablation of every write on a short text."""
    row = probe(subject, 8)
    changed = forward(subject.with_(edit), [row]).logits
    ablated = forward(subject.with_(*ablated_writes(subject, vector, embedding=embedding)), [row]).logits
    plain = forward(subject, [row]).logits
    gap, size = float((changed - ablated).abs().max()), float((ablated - plain).abs().max())
    return Evidence(
        "weights against ablation",
        f"On a short text the changed weights differ from the ablation of every write by at most {gap:.2g}, where the "
        f"ablation itself changes outputs by up to {size:.3g}.",
        {"gap": gap, "size": size},
        ok=bool(gap <= 1e-3 * max(size, 1e-3) + 1e3 * torch.finfo(getattr(torch, subject.dtype)).eps),
    )
