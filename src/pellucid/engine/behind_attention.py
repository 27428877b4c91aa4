"""The part of a block behind its attention, run alone on whatever attention might have given.

Behind attention every position goes on by itself, so vectors of any positions can be run side by side, and none of
them needs queries, keys or patterns again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import ModelError, PellucidError
from pellucid.core.tokens import Tokens
from pellucid.engine.transformed import AttentionBlock, followed_stack
from pellucid.engine.variants import row, whole
from pellucid.models.batch import evaluating
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, acting, hooked
from pellucid.models.kernels import fast
from pellucid.models.layout import block_of, place, submodule
from pellucid.models.taps import first_input, rewrap, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Work = Mapping[torch.nn.Module, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class BehindAttention:
    """One block's rest: the module, what it was called with, and what its attention module returned."""

    subject: Subject
    block: AttentionBlock
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attention: torch.nn.Module
    returned: Any
    projection: torch.nn.Module

    @torch.no_grad()
    def __call__(self, attended: torch.Tensor, positions: torch.Tensor, work: Work | None = None) -> torch.Tensor:
        """Return what leaves the block [vectors, dimension] for attention outputs `attended` at positions [vectors].

        Exact: `attended` unchanged gives what left the block in the run. `work` stands in for further modules.
        """
        dtype = unwrap(self.returned, 0).dtype
        hidden = self.block.before[positions][None].to(dtype)
        args, kwargs = first_input(self.args, self.kwargs)[1](hidden)
        with ExitStack() as stack:
            stack.enter_context(self.subject.lock)
            stack.enter_context(evaluating(self.subject.model))
            stack.enter_context(fast(self.subject.model))
            stack.enter_context(acting({**self._work(attended, positions), **(work or {})}))
            output = self.module(*args, **kwargs)
        return unwrap(output, 0).reshape(len(positions), -1).to(attended)

    def _beside(self) -> torch.Tensor:
        """Return what the attention module adds to its projection: nothing, or (BLOOM) the residual stream.

        Raises:
            ModelError: it does something else, such as a norm.
        """
        block = self.block
        beside = unwrap(self.returned, 0).reshape(block.attended.shape).to(block.attended) - block.attended
        limit = _tolerance(self.subject) * block.attended.abs().max()
        for known in (torch.zeros_like(beside), block.before):
            if bool((beside - known).abs().max() <= limit):
                return known
        raise ModelError(
            f"{type(self.attention).__name__} does more than attend and project, so its block cannot be run in halves; "
            "run it whole, with edits."
        )

    def _work(self, attended: torch.Tensor, positions: torch.Tensor) -> Work:
        """Return what stands in for attention: its module, and the output projection where that lies outside."""
        raw = unwrap(self.returned, 0)
        given = attended[None].to(raw)
        if self.projection in set(self.attention.modules()):
            output = rewrap(self.returned, 0, given + self._beside()[positions].to(raw))
            return {self.attention: lambda *args, **kwargs: output}
        nothing = rewrap(self.returned, 0, raw.new_zeros(1, len(positions), raw.shape[-1]))
        return {self.attention: lambda *args, **kwargs: nothing, self.projection: lambda *args, **kwargs: given}


def behind_attention(
    subject: Subject, tokens: Tokens, blocks: Sequence[AttentionBlock]
) -> list[BehindAttention] | None:
    """Return the rest of every block, or None where blocks of this kind, or edits, do not allow it; one forward pass.

    Each is tried on the run's own attention output, and must give the run's own block output.
    """
    name, layout = followed_stack(subject), subject.need_layout()
    stack = layout.stacks[name]
    found = [block_of(subject.model, stack, layer) for layer in range(len(blocks))]
    modules = [module for module, _ in found]
    attentions = [submodule(module, stack.attention) for module in modules]
    calls: dict[torch.nn.Module, list[Any]] = {}

    def entered(module: torch.nn.Module) -> Callable[..., Any]:
        def keep(args: Any, kwargs: Any) -> Any:
            calls.setdefault(module, []).append((args, kwargs))
            return args, kwargs

        return keep

    def left(module: torch.nn.Module) -> Callable[..., Any]:
        def keep(output: Any) -> Any:
            calls.setdefault(module, []).append(output)
            return output

        return keep

    hooks = [Hook(module, "input", entered(module)) for module in dict.fromkeys(modules)]
    hooks += [Hook(module, "output", left(module)) for module in dict.fromkeys(attentions)]
    with torch.no_grad(), subject.lock, hooked(hooks):
        forward(subject, [row(subject, tokens, whole(tokens))])
    rests = []
    for layer, (module, scope) in enumerate(found):
        number = 0 if scope is None else scope.call
        args, kwargs = calls[module][number]
        projection = place(subject.model, layout, Site(name, layer, "attn.z")).module
        returned = calls[attentions[layer]][number]
        rests.append(
            BehindAttention(subject, blocks[layer], module, args, kwargs, attentions[layer], returned, projection)
        )
    return rests if all(_agrees(rest) for rest in rests) else None


def some_positions(block: AttentionBlock) -> torch.Tensor:
    """Return a few positions, first and last among them, on which a way is tried."""
    last = len(block.before) - 1
    return torch.linspace(0, last, min(last + 1, 8), device=block.before.device).round().long()


def _agrees(rest: BehindAttention) -> bool:
    block, at = rest.block, some_positions(rest.block)
    try:
        after = rest(block.attended[at], at)
    except (PellucidError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False
    return after.shape == block.after[at].shape and agree(after, block.after[at], rest.subject)


def agree(found: torch.Tensor, expected: torch.Tensor, subject: Subject) -> bool:
    """Return whether two ways to the same vectors differ by no more than a model of this dtype rounds."""
    gap = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    return bool(gap <= _tolerance(subject))


def _tolerance(subject: Subject) -> float:
    return min(2000 * max(torch.finfo(getattr(torch, subject.dtype)).eps, 1e-9), 0.05)
