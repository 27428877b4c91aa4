"""A direction taken away from everything that writes into the residual stream: as edits, and in the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, EditError
from pellucid.engine.head_weights import one_stack
from pellucid.models.edits import Edit
from pellucid.models.layout import depth, place
from pellucid.models.weight_edits import editable

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Factors = dict[str, tuple[np.ndarray, np.ndarray]]
WRITES = ("attn.out", "mlp.out")


def ablated_writes(subject: Subject, direction: torch.Tensor, *, embedding: bool = True) -> tuple[Edit, ...]:
    """Return the edits that project a direction out of the embedding and of every block's contributions. Exact."""
    blocks = range(depth(subject.model, subject.need_layout()))
    sites = [*(["embed"] if embedding else []), *(f"blocks.{layer}.{part}" for layer in blocks for part in WRITES)]
    return tuple(Edit(site, "project", direction) for site in sites)


@torch.no_grad()
def orthogonal_factors(
    subject: Subject, direction: torch.Tensor, *, embedding: bool = True
) -> tuple[Factors, dict[str, np.ndarray]]:
    """Return the changes of weights after which nothing written into the stream lies along a direction.

    W <- W - r r'W for the matrices that write, as factors of rank one, and b <- b - r r'b for their biases, as tensors.
    The forward pass then equals that under `ablated_writes`, up to rounding.

    Args:
        subject: a pre-norm decoder or encoder of one stack.
        direction: r, of any length [dimension].
        embedding: change the embeddings of tokens and positions too.

    Raises:
        CapabilityError: a model where this is not exact: post-norm, norms behind sub-layers, mixtures of experts, or
            matrices that are no plain linear layers.
        EditError: an embedding tied to the unembedding.
    """
    one_stack(subject)
    layout = subject.need_layout()
    stack = layout.stacks[""]
    if stack.norm != "pre" or stack.shared or not {"attn.z", "mlp.post"} <= set(stack.taps):
        raise CapabilityError(
            f"Orthogonal weights are exact where matrices write into the stream directly, which {layout.architecture} "
            "does not do (norms behind them, shared blocks or experts); ablate with Steering instead."
        )
    r = direction.double() / direction.double().norm()
    names = {id(p): name for name, p in subject.model.named_parameters(remove_duplicate=False)}
    factors: Factors = {}
    tensors: dict[str, np.ndarray] = {}
    for layer in range(depth(subject.model, layout)):
        for part in ("attn.z", "mlp.post"):
            module = place(subject.model, layout, Site("", layer, part)).module
            if not isinstance(module, torch.nn.Linear | Conv1D):
                raise CapabilityError(
                    f"Layer {layer} writes through a {type(module).__name__}, which is no plain linear layer; ablate "
                    "with Steering instead."
                )
            name = names[id(module.weight)]
            factors[name] = _factors(editable(subject, name), r, rows=isinstance(module, torch.nn.Linear))
            if module.bias is not None:
                bias = module.bias.double()
                tensors[names[id(module.bias)]] = _plain(-(bias @ r) * r, module.bias)
    if embedding:
        factors |= _embeddings(subject, r, names)
    return factors, tensors


def _embeddings(subject: Subject, r: torch.Tensor, names: dict[int, str]) -> Factors:
    layout = subject.need_layout()
    tokens = place(subject.model, layout, Site("", None, "embed.token")).module
    blocks = {id(m) for i in range(depth(subject.model, layout)) for m in _inside(subject, i)}
    found: Factors = {}
    for module in subject.model.modules():
        if not isinstance(module, torch.nn.Embedding) or id(module) in blocks:
            continue
        if module.embedding_dim != len(r):
            raise CapabilityError(
                f"The embedding of {subject.name} has {module.embedding_dim} components and is projected to {len(r)}; "
                "pass embedding=False."
            )
        name = names[id(module.weight)]
        try:
            found[name] = _factors(editable(subject, name), r, rows=False)
        except EditError as error:
            raise EditError(
                f"The token embedding {name!r} is also the unembedding, so taking a direction out of it changes the "
                "logits as well; pass embedding=False, or untie them."
            ) from error
    if names[id(tokens.weight)] not in found:
        raise CapabilityError(f"The embedding of {subject.name} is no plain table; pass embedding=False.")
    return found


def _inside(subject: Subject, layer: int) -> list[torch.nn.Module]:
    return list(place(subject.model, subject.need_layout(), Site("", layer, "resid_pre")).module.modules())


def _factors(weight: torch.Tensor, r: torch.Tensor, *, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of -r r'W, in the layout in which outputs are the rows, or else the columns."""
    r = r.to(weight.device)
    wide = weight.detach().double()
    left, right = (-r[:, None], (r @ wide)[None]) if rows else (-(wide @ r)[:, None], r[None])
    return _plain(left, weight), _plain(right, weight)


def _plain(value: torch.Tensor, like: torch.Tensor) -> np.ndarray:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    found: np.ndarray = value.detach().to(dtype).cpu().contiguous().numpy()
    return found
