"""LASER: keep a few singular directions of one matrix and drop the rest."""

from __future__ import annotations

import torch

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction
from pellucid.core.results import Evidence, WeightEdit
from pellucid.models.subject import Subject
from pellucid.models.weight_edits import editable


@method(
    rows=("STR-6",),
    paper="arXiv:2312.13558",
    takes="models",
    produces="weight_edit",
    needs=("weights",),
)
def laser(subject: Subject, parameter: str, *, keep: Fraction = 0.1) -> WeightEdit:
    """Replace one matrix by the nearest one of lower rank.

    W' = U_k S_k V_k' with the k largest singular values of W (Sharma et al. 2023, arXiv:2312.13558), where it helped
    most in late feed-forward layers at a few per cent of the rank; which matrix and rank help is found by trying them
    on held-out questions, for instance with `prove_edit`. Exact: of all matrices of rank k none is nearer to W in the
    Frobenius norm, and |W' - W|^2 is the sum of the squares of the values dropped (in the evidence).

    Args:
        subject: the model, from `pellucid.load`.
        parameter: the name of a matrix, one of `subject.model.named_parameters()`.
        keep: share of the largest possible rank that is kept, at least one direction; 1 changes nothing.

    Returns:
        WeightEdit with the factors of W' - W.

    Raises:
        EditError: no such parameter, a tied one, or one with NaN or infinite values.
        CapabilityError: quantised or offloaded weights, or some below an adapter.
        InputError: a parameter that is no matrix.
    """
    weight = editable(subject, parameter)
    if weight.ndim != 2:
        raise InputError(f"{parameter!r} has the shape {tuple(weight.shape)}, which is no matrix; name a matrix.")
    if not bool(torch.isfinite(weight).all()):
        raise EditError(f"{parameter!r} holds NaN or infinite values, so it has no singular values; mend the weights.")
    wide = weight.detach().double()
    left, sizes, right = torch.linalg.svd(wide, full_matrices=False)
    rank = max(1, round(keep * len(sizes)))
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    factors = (-left[:, rank:] * sizes[rank:]).to(dtype), right[rank:].to(dtype)
    kept = float(sizes[:rank].square().sum() / sizes.square().sum().clamp(min=1e-300))
    values = {"rank": float(rank), "of": float(len(sizes)), "kept": kept,
              "dropped norm": float(sizes[rank:].norm()), "norm": float(sizes.norm())}  # fmt: skip
    return WeightEdit(
        f"LASER: {parameter} at rank {rank} of {len(sizes)}",
        factors={parameter: (factors[0].cpu().contiguous().numpy(), factors[1].cpu().contiguous().numpy())},
        weights_hash=subject.weights_hash(),
    ).with_evidence(
        Evidence("rank kept", f"{rank} of {len(sizes)} singular directions hold {100 * kept:.1f} % of |W|^2.", values)
    )
