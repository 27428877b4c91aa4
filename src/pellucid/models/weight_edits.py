"""Edits of weights: a model beside the original that shares all other weights with it, or a change in place.

A new weight is the old one plus the delta, added in float32 (float64 for float64 weights) and rounded once to the dtype
of the weight. So a bfloat16 model is edited to its own precision and no further, and what is reverted comes back bit
for bit because the old weight itself is kept, never reconstructed by a subtraction.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, EditError, ModelError, did_you_mean
from pellucid.core.results import Table, WeightEdit
from pellucid.models.weights import PLAIN, adapters


@runtime_checkable
class Weighted(Protocol):
    """What is asked of a `Subject` here, which imports this file."""

    model: Any
    name: str
    weight_edits: tuple[WeightEdit, ...]

    @property
    def lock(self) -> Any:
        """Return the lock that every run of the model holds."""
        ...

    def weights_hash(self) -> str:
        """Return a fingerprint of the weights."""
        ...


Handle = TypeVar("Handle", bound=Weighted)


@dataclass(frozen=True, eq=False)
class Originals:
    """What `apply_weights` replaced: the old values of the changed parameters, by name."""

    values: Mapping[str, torch.Tensor]


def apply_weights(subject: Weighted, *edits: WeightEdit) -> Originals:
    """Change a live model in place and return what `revert_weights` needs; nothing changes where anything is refused.

    Every view of the model sees the change. `Subject.with_(edit)` leaves the original alone and is the usual way.

    Raises:
        EditError: an edit of other weights, an unknown parameter, a tied one, a wrong shape, or NaN.
        CapabilityError: weights that are quantised, offloaded, or below an adapter.
    """
    with subject.lock, torch.no_grad():
        found = new_values(subject, edits)
        parameters = dict(subject.model.named_parameters())
        kept = {name: parameters[name].detach().clone() for name in found}
        for name, value in found.items():
            parameters[name].copy_(value)
    return Originals(kept)


def revert_weights(subject: Weighted, originals: Originals) -> None:
    """Put the old values back, bit for bit."""
    with subject.lock, torch.no_grad():
        parameters = dict(subject.model.named_parameters())
        for name, value in originals.values.items():
            parameters[name].copy_(value)


@contextmanager
def changed_in_place(subject: Handle, *edits: WeightEdit) -> Iterator[Handle]:
    """Hold a change of the live model, and take it back bit for bit at the end, also when something raises."""
    originals = apply_weights(subject, *edits)
    try:
        yield subject
    finally:
        revert_weights(subject, originals)


def edited_model(subject: Weighted, edits: Sequence[WeightEdit]) -> Any:
    """Return a model of its own modules that shares every weight with the subject's except those that the edits change.

    Raises:
        EditError, CapabilityError: as `apply_weights`.
        ModelError: a model whose modules cannot be copied.
    """
    with subject.lock, torch.no_grad():
        model = subject.model
        found = new_values(subject, edits)
        memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        for name, parameter in model.named_parameters():
            if name in found:
                memo[id(parameter)] = torch.nn.Parameter(found[name], requires_grad=parameter.requires_grad)
        try:
            return copy.deepcopy(model, memo)
        except (TypeError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{subject.name} holds something that cannot be copied ({error}), so it has no edited view; change it "
                "in place with pellucid.models.weight_edits.changed_in_place."
            ) from error


def new_values(subject: Weighted, edits: Sequence[WeightEdit]) -> dict[str, torch.Tensor]:
    """Return the new value of every parameter that the edits change; check all of them before anything is made."""
    found: dict[str, torch.Tensor] = {}
    hashes = {""} if all(not edit.weights_hash for edit in edits) else {"", subject.weights_hash()}
    hashes |= {edit.weights_hash for edit in subject.weight_edits}
    named = dict(subject.model.named_parameters(remove_duplicate=False))
    for edit in edits:
        if edit.weights_hash not in hashes:
            raise EditError(
                f"The weight edit was made for the weights {edit.weights_hash}, but {subject.name} has "
                f"{subject.weights_hash()}; make it again for this model."
            )
        for name in edit.names:
            parameter = editable(subject, name, named)
            wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
            delta = torch.as_tensor(edit.delta(name), device=parameter.device)
            if delta.shape != parameter.shape:
                raise EditError(
                    f"The weight edit gives {name!r} the shape {tuple(delta.shape)}, but it has "
                    f"{tuple(parameter.shape)}; give the delta in the model's own layout."
                )
            if not bool(torch.isfinite(delta).all()):
                raise EditError(f"The weight edit of {name!r} holds NaN or infinite values; make it again.")
            found[name] = found.get(name, parameter.detach().to(wide)) + delta.to(wide)
    return {name: value.to(named[name].dtype) for name, value in found.items()}


def editable(subject: Weighted, name: str, named: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Return the parameter of that name; raise where a change of it would not be what it says.

    Raises:
        EditError: no such parameter, or one that stands in two places of the model.
        CapabilityError: a quantised or offloaded one, or one below an adapter.
    """
    named = dict(subject.model.named_parameters(remove_duplicate=False)) if named is None else named
    packed = any(hasattr(module, "_packed_params") for module in subject.model.modules())
    if name not in named:
        reason = " as a plain tensor, because it is quantised" if packed else did_you_mean(name, list(named))
        raise EditError(f"{subject.name} has no parameter {name!r}{reason}; use a name of model.named_parameters().")
    parameter = named[name]
    if parameter.device.type == "meta":
        raise CapabilityError(
            f"{name!r} of {subject.name} is offloaded, so it cannot be edited; load the model without offloading."
        )
    if type(parameter) not in PLAIN or not parameter.is_floating_point():
        raise CapabilityError(
            f"{name!r} of {subject.name} is quantised, so it cannot be edited; load the model in float32 or bfloat16."
        )
    if ".base_layer." in name and any(not merged for _, _, merged, _ in adapters(subject.model)):
        raise CapabilityError(
            f"{name!r} of {subject.name} lies below an adapter that is not merged; merge the adapter first."
        )
    others = [other for other, value in named.items() if value is parameter and other != name]
    if others:
        raise EditError(
            f"{name!r} of {subject.name} is tied to {others[0]!r}, so an edit would change both; untie them first."
        )
    return parameter


def digest(edit: WeightEdit) -> str:
    """Return a fingerprint of all numbers of an edit."""
    found = hashlib.sha256()
    for name in edit.names:
        found.update(name.encode())
        for array in edit.factors.get(name) or (edit.deltas[name],):
            found.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def describe(edit: WeightEdit) -> str:
    """Return an edit in one line, for provenance."""
    made = edit.provenance.method or "weight edit"
    return f"{made} {digest(edit)[:8]} of {', '.join(edit.names)}"


def inspect_weights(subject: Weighted, *edits: WeightEdit) -> Table:
    """Return for each changed parameter the rank and the Frobenius norm of the change, and its ratio to the weight's.

    Args:
        subject: the model that the edits are for (the norms of its weights are those before the change).
        edits: one or several; changes of one parameter are summed.

    Returns:
        Table with the columns parameter, rows, columns, rank, norm, weight norm, ratio.
    """
    named = dict(subject.model.named_parameters(remove_duplicate=False))
    rows = []
    for name in dict.fromkeys(name for edit in edits for name in edit.names):
        parts = [edit for edit in edits if name in edit.names]
        delta = np.sum([edit.delta(name).astype(np.float64) for edit in parts], axis=0)
        flat = delta.reshape(delta.shape[0], -1)
        rank = _rank(parts[0].factors[name]) if len(parts) == 1 and name in parts[0].factors else _rank((flat,))
        own = float(editable(subject, name, named).detach().double().norm())
        norm = float(np.linalg.norm(delta))
        rows.append((name, *flat.shape, rank, norm, own, norm / own if own else float("inf")))
    columns = ("parameter", "rows", "columns", "rank", "norm", "weight norm", "ratio")
    return Table(title="Weight edit", columns=columns, rows=tuple(rows))


def _rank(factors: tuple[np.ndarray, ...]) -> int:
    """Return the numerical rank of a matrix, or of a product of two, whose triangular parts are enough."""
    precision = max(float(np.finfo(part.dtype).eps) for part in factors)
    if len(factors) == 2:
        left, right = (part.astype(np.float64) for part in factors)
        matrix = np.linalg.qr(left, mode="r") @ np.linalg.qr(right.T, mode="r").T
    else:
        matrix = factors[0].astype(np.float64)
    sizes = np.linalg.svd(matrix, compute_uv=False)
    return int((sizes > sizes.max(initial=0.0) * max(precision, 1e-7) * max(matrix.shape)).sum())
