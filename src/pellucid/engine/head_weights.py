"""The weights of attention heads and neurons as linear maps of the residual stream, whatever modules hold them.

Modules are asked, not read: a projection is what it makes of unit vectors, so fused projections, transposed weights and
grouped heads need no rules of their own. The norm in front is folded in as its gain (and centring); its divisor is left
out, since it depends on the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import CapabilityError
from pellucid.engine.frozen_norms import frozen_norm
from pellucid.engine.transformed import projected
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, hooked
from pellucid.models.layout import block_of, place
from pellucid.models.proofs import probe
from pellucid.models.taps import first_input, view

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """One layer's heads: `query`, `key`, `value` [head, dimension, width] and `output` [head, width, dimension].

    Keys and values that several query heads share are repeated. A row vector x of the stream makes x @ query; biases
    are left out.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor


def one_stack(subject: Subject) -> None:
    """Raise `CapabilityError` for a model whose weights cannot be read as maps of one residual stream."""
    layout = subject.need_layout()
    if "" not in layout.stacks or layout.stacks[""].norm == "post":
        raise CapabilityError(
            f"Weights are read as maps of one residual stream with norms in front of each part, which "
            f"{layout.architecture} does not have; use a pre-norm model with one stack."
        )


@torch.no_grad()
def head_weights(subject: Subject, layer: int) -> HeadWeights:
    """Return the weights of a layer's heads, the gain of the norm in front folded in; float32 or float64.

    Raises:
        CapabilityError: projections that are not linear, or a model without one pre-norm stack.
    """
    one_stack(subject)
    with subject.lock:
        gain, centred = norm_before(subject, str(Site("", layer, "attn.q")))
        width = len(gain)
        found = []
        for part in ("q", "k", "v"):
            at = place(subject.model, subject.need_layout(), Site("", layer, f"attn.{part}"))
            maps = _linear(at.module, gain, centred)[None]
            found.append(view(maps, at.tap, at.stack.heads, 1)[0].transpose(0, 1))
        heads = at.stack.heads.query
        module = place(subject.model, subject.need_layout(), Site("", layer, "attn.z")).module
        size = found[2].shape[-1]
        output, _ = projected(module, heads * size, gain.new_zeros(1, width))
    query, key, value = (one.repeat_interleave(heads // len(one), 0) for one in found)
    return HeadWeights(query, key, value, output.view(heads, size, -1))


@torch.no_grad()
def neuron_weights(subject: Subject, layer: int) -> torch.Tensor:
    """Return what each neuron of a feed-forward layer writes into the stream: [neuron, dimension].

    Raises:
        SiteError: experts that are computed jointly.
        CapabilityError: a model without one pre-norm stack.
    """
    one_stack(subject)
    at = place(subject.model, subject.need_layout(), Site("", layer, "mlp.post"))
    like = embedding(subject)[:1]
    weight = getattr(at.module, "weight", None)
    if weight is None:
        raise CapabilityError(f"{type(at.module).__name__} holds no weight matrix, so its neurons cannot be read.")
    width = max(weight.shape) if min(weight.shape) == like.shape[1] else min(weight.shape)
    with subject.lock:
        return projected(at.module, width, like)[0]


@torch.no_grad()
def embedding(subject: Subject) -> torch.Tensor:
    """Return the token embedding [vocabulary, dimension], without factors that a model puts behind it."""
    weight: torch.Tensor = subject.model.get_input_embeddings().weight.detach()
    return _wide(subject, weight)


@torch.no_grad()
def unembedding(subject: Subject) -> torch.Tensor:
    """Return what a vector in the last stream adds to each logit: [vocabulary, dimension], final norm's gain within.

    Raises:
        CapabilityError: a model without an unembedding, or with a projection between.
    """
    one_stack(subject)
    module = subject.model.get_output_embeddings() if hasattr(subject.model, "get_output_embeddings") else None
    layout = subject.need_layout()
    if module is None or not isinstance(getattr(module, "weight", None), torch.Tensor) or layout.readout:
        raise CapabilityError(
            f"{subject.name} has no plain unembedding that vectors could be read with; use a causal LM."
        )
    weight = _wide(subject, module.weight.detach())
    path = layout.stacks[""].final_norm
    if not path:
        return weight
    norm = place(subject.model, layout, Site("", None, "final_norm")).module
    with subject.lock:
        gain, centred = _gain(norm, weight.shape[1], weight)
    weight = weight * gain
    return weight - weight.mean(1, keepdim=True) if centred else weight


@torch.no_grad()
def norm_before(subject: Subject, site: str) -> tuple[torch.Tensor, bool]:
    """Return the gain [dimension] of the norm that a projection reads through, and whether it centres.

    The norm is found in one short run: the module of the block that gave what the projection is given. A gain of ones
    stands for none.
    """
    parsed = parse_site(site)
    assert parsed.layer is not None
    at = place(subject.model, subject.need_layout(), parsed)
    block, _ = block_of(subject.model, at.stack, parsed.layer)
    norms = [m for m in block.modules() if "norm" in type(m).__name__.lower() or isinstance(m, torch.nn.Identity)]
    gave: list[tuple[torch.nn.Module, torch.Tensor]] = []
    read: list[tuple[torch.nn.Module | None, int]] = []

    def keep(module: torch.nn.Module) -> Any:
        def after(output: Any) -> Any:
            if isinstance(output, torch.Tensor):
                gave.append((module, output))
            return output

        return after

    def look(args: Any, kwargs: Any) -> Any:
        given = first_input(args, kwargs)[0]
        source = next((m for m, out in reversed(gave) if out.shape == given.shape and torch.equal(out, given)), None)
        read.append((source, given.shape[-1]))
        return args, kwargs

    hooks = [*(Hook(m, "output", keep(m)) for m in norms), Hook(at.module, "input", look)]
    with subject.lock, subject.uncounted(), hooked(hooks):
        forward(subject.without_edits(), [probe(subject, 4)])
    module, width = read[0]
    like = embedding(subject)[:1, :1]
    if module is None:
        return torch.ones(width, dtype=like.dtype, device=like.device), False
    return _gain(module, width, like)


def _gain(norm: torch.nn.Module, width: int, like: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return the gain of a norm at an input of mean 0 and mean square 1."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, width, generator=generator).to(like)
    inputs[1] -= inputs[1].mean()
    inputs[1] /= inputs[1].square().mean().sqrt()
    found = frozen_norm(norm, inputs)
    return found.gain[1], found.centred


def _linear(module: torch.nn.Module, gain: torch.Tensor, centred: bool) -> torch.Tensor:
    """Return what a linear module makes of the stream's unit vectors behind a norm: [dimension, outputs]."""
    width = len(gain)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), gain.dtype)
    sample = torch.randn(1, width, generator=torch.Generator().manual_seed(1)).to(gain)
    weight, bias = projected(module, width, gain.new_zeros(1, 1)) if _bare(module) else (None, None)
    if weight is None:
        units = torch.cat([torch.zeros_like(sample), torch.eye(width).to(sample), sample]).to(dtype)
        answers: Any = module(units[None])
        if not isinstance(answers, torch.Tensor) or answers.ndim != 3:
            raise CapabilityError(f"{type(module).__name__} is no projection, so its heads' weights cannot be read.")
        out = answers[0].to(gain)
        weight, bias = out[1:-1] - out[0], out[0]
        gap = (sample @ weight + bias - out[-1]).abs().max() / out.abs().max().clamp(min=1e-30)
        if not float(gap) < 2000 * max(torch.finfo(dtype).eps, 1e-9):
            raise CapabilityError(f"{type(module).__name__} is not linear, so its heads' weights cannot be read.")
    weight = gain[:, None] * weight
    return weight - weight.mean(0, keepdim=True) if centred else weight


def _bare(module: torch.nn.Module) -> bool:
    return type(module) is torch.nn.Linear and module.bias is None


def _wide(subject: Subject, weight: torch.Tensor) -> torch.Tensor:
    return weight.to(torch.float64 if subject.dtype == "float64" else torch.float32)


def largest_pairs(left: torch.Tensor, right: torch.Tensor, count: int) -> list[tuple[int, int, float]]:
    """Return the largest entries (row, column, value) of left @ right.T, never holding more than some rows of it."""
    best: list[tuple[int, int, float]] = []
    step = max(1, ROWS_AT_ONCE * 1024 // len(right))
    for first in range(0, len(left), step):
        part = left[first : first + step] @ right.T
        values, index = part.flatten().topk(min(count, part.numel()))
        best += [
            (first + int(i) // len(right), int(i) % len(right), float(v)) for v, i in zip(values, index, strict=True)
        ]
        best = sorted(best, key=lambda entry: -entry[2])[:count]
    return best
