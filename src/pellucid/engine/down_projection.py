"""The matrix at the end of a feed-forward layer, as a memory of keys and values: what it is called and how it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, SiteError
from pellucid.core.results import WeightEdit
from pellucid.models.layout import depth, place
from pellucid.models.weight_edits import editable

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True, eq=False)
class DownProjection:
    """The matrix W of one layer: value [dimension] = W [dimension, neuron] key [neuron] + bias.

    `name` is the parameter's; `transposed` says that the model stores it as [neuron, dimension]. `key` and `value` are
    the sites of what goes in and comes out, and `scale` is what the block multiplies the value by.
    """

    layer: int
    name: str
    module: torch.nn.Module
    weight: torch.Tensor
    transposed: bool
    value: str
    scale: float

    @property
    def key(self) -> str:
        """Return the site of the keys."""
        return f"blocks.{self.layer}.mlp.post"

    @property
    def neurons(self) -> int:
        """Return the number of neurons."""
        return int(self.weight.shape[0 if self.transposed else 1])

    def value_of(self, neuron: int) -> torch.Tensor:
        """Return what one neuron writes [dimension], in float64."""
        return self.weight.detach()[neuron if self.transposed else (slice(None), neuron)].double()

    @property
    def matrix(self) -> torch.Tensor:
        """Return W [dimension, neuron] in float64."""
        wide = self.weight.detach().double()
        return wide.T if self.transposed else wide

    def stored(self, change: torch.Tensor) -> torch.Tensor:
        """Return a change [dimension, neuron] as the model stores the matrix."""
        return change.T if self.transposed else change

    def factors(self, left: torch.Tensor, right: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the factors of a change left [dimension, rank] @ right [rank, neuron] in the model's own layout."""
        pair = (right.T, left.T) if self.transposed else (left, right)
        dtype = torch.float64 if self.weight.dtype == torch.float64 else torch.float32
        return pair[0].to(dtype).cpu().contiguous().numpy(), pair[1].to(dtype).cpu().contiguous().numpy()


def down_projections(subject: Subject, layers: list[int] | tuple[int, ...]) -> list[DownProjection]:
    """Return the matrices of some layers.

    Raises:
        SiteError: no such layer.
        CapabilityError: mixtures of experts, blocks that share one matrix, or a module that is no linear layer.
        EditError: a matrix that is tied to another parameter.
    """
    layout = subject.need_layout()
    stack = layout.stacks.get("")
    if stack is None or stack.shared:
        raise CapabilityError(
            f"Editing one layer was asked of {subject.name}, whose blocks share their matrices or form two stacks; it "
            "is defined for decoders with a matrix of their own in each layer."
        )
    count = depth(subject.model, layout)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or not layers:
        raise SiteError(f"Editing was asked at layers {list(layers)}, but {subject.name} has layers 0 to {count - 1}.")
    return [_one(subject, layer) for layer in layers]


def middle_matrices(subject: Subject, layers: Sequence[int] | int | None) -> list[DownProjection]:
    """Return the matrices of some layers, None meaning two in the middle; errors as of `down_projections`."""
    middle = max(0, subject.layers // 2 - 1)
    chosen = [middle, min(middle + 1, subject.layers - 1)] if layers is None else layers
    return down_projections(subject, sorted({chosen} if isinstance(chosen, int) else set(chosen)))


def weight_edit(
    subject: Subject, matrices: Sequence[DownProjection], total: Sequence[torch.Tensor], title: str
) -> WeightEdit:
    """Return changes [dimension, neuron] of matrices as an edit, in the model's own layout."""
    deltas = {m.name: m.stored(change).cpu().contiguous().numpy() for m, change in zip(matrices, total, strict=True)}
    return WeightEdit(title, deltas=deltas, weights_hash=subject.weights_hash())


def _one(subject: Subject, layer: int) -> DownProjection:
    layout = subject.need_layout()
    stack = layout.stacks[""]
    if "mlp.post" not in stack.taps or "router" in stack.taps:
        raise CapabilityError(
            f"Editing the feed-forward layer was asked of {subject.name}, whose experts are chosen per token, so that "
            "no single matrix holds a fact; use a model without experts."
        )
    module = place(subject.model, layout, Site("", layer, "mlp.post")).module
    names = {id(found): name for name, found in subject.model.named_modules()}
    name = f"{names[id(module)]}.weight"
    weight = editable(subject, name)
    if not isinstance(module, torch.nn.Linear | Conv1D):
        raise CapabilityError(
            f"{name!r} of {subject.name} belongs to a {type(module).__name__}, which is no linear layer; edit a model "
            "with plain linear layers."
        )
    raw = "mlp.out_raw" if "mlp.out_raw" in stack.taps else "mlp.out"
    transposed = isinstance(module, Conv1D)
    return DownProjection(layer, name, module, weight, transposed, f"blocks.{layer}.{raw}", stack.residual_scale)
