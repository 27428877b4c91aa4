"""Where a block's rest begins: a norm and linear layers, which need no product of their own for every pair of tokens.

Without the value of token j, the stream at i is h_i - sum_h alpha_ij^h f_j^h. A norm is linear but for its divisor, so
a linear layer W behind it gives r_ij (W n(h_i) - sum_h alpha_ij^h W n(f_j^h)) + W b, with n the norm's linear part and
r_ij the ratio of the divisors. W is multiplied once for every token and head, and no longer for every pair.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from pellucid.core.errors import ModelError
from pellucid.engine.behind_attention import BehindAttention, agree, some_positions
from pellucid.engine.frozen_norms import FrozenNorm, frozen_norm
from pellucid.models.batch import evaluating
from pellucid.models.hooks import Hook, hooked
from pellucid.models.kernels import fast

MOST_NUMBERS = 2**27  # of the layers' outputs for every token and head


@dataclass(frozen=True, eq=False)
class Entrance:
    """The first linear layers of one block's rest, multiplied ahead.

    `ahead` holds for each layer W n(h_i) [position, out], W n(f_j^h) [key, head, out] and W b plus its bias [out].
    """

    rest: BehindAttention
    norm: FrozenNorm
    ahead: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

    @torch.no_grad()
    def without(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return what leaves the block [pairs, dimension] at `query` without the value of `key`; pairs sorted by key.

        Exact, up to rounding.
        """
        block = self.rest.block
        attended = block.attended[query] - block.pairs(query, key)
        linear = _linear(self.norm, block.before[query] + block.scale * attended)

        def work(layer: torch.nn.Module) -> Callable[..., torch.Tensor]:
            clean, parts, constant = self.ahead[layer]

            def run(given: torch.Tensor) -> torch.Tensor:
                normed = given.reshape(linear.shape).to(linear) - self.norm.bias
                ratio = (normed * linear).sum(-1, keepdim=True) / (linear * linear).sum(-1, keepdim=True)
                found = block.add_pairs(clean[query], query, key, parts, -1.0)
                found = torch.addcmul(constant, found, ratio)
                return found.to(given).reshape(*given.shape[:-1], -1)

            run.__dict__["multiplied_ahead"] = True  # for those who count products by the calls of layers
            return run

        return self.rest(attended, query, {layer: work(layer) for layer in self.ahead})


@torch.no_grad()
def entrance(rest: BehindAttention, pairs: int) -> Entrance | None:
    """Return the entrance of a block's rest, or None where it has none or where so few pairs are cheaper one by one.

    It is tried on the run itself: with no token taken away it must give what left the block.
    """
    block = rest.block
    rows = block.values.shape[0] * (block.values.shape[1] + 1)
    if block.sub_norm is not None or pairs < 1.2 * rows:
        return None
    summed = block.before + block.scale * block.attended
    found = _layers(rest, summed)
    if found is None:
        return None
    norm, layers = found
    outputs = sum(_outputs(layer) for layer in layers)
    if outputs < summed.shape[-1] or rows * outputs > MOST_NUMBERS:
        return None
    vectors = torch.cat([summed[:, None], block.scale * block.values], 1)
    inputs = torch.cat([_linear(norm, vectors).flatten(0, 1), norm.bias[None]])
    ahead = {}
    with ExitStack() as stack:
        stack.enter_context(rest.subject.lock)
        stack.enter_context(evaluating(rest.subject.model))
        stack.enter_context(fast(rest.subject.model))
        for layer in layers:
            bias: Any = layer.bias
            given = layer(inputs.to(layer.weight))[None].to(inputs)[0]  # type: ignore[operator, arg-type]
            bare = given[:-1] if bias is None else given[:-1] - bias.detach().to(given)
            bare = bare.view(*vectors.shape[:2], -1)
            ahead[layer] = (bare[:, 0].contiguous(), bare[:, 1:], given[-1])
    made = Entrance(rest, norm, ahead)
    return made if _holds(made) else None


def _holds(made: Entrance) -> bool:
    """Compare a few pairs with the block's own layers."""
    block = made.rest.block
    query = some_positions(block)
    key = torch.zeros_like(query)
    plain = made.rest(block.attended[query] - block.pairs(query, key), query)
    return agree(made.without(query, key), plain, made.rest.subject)


def _linear(norm: FrozenNorm, vectors: torch.Tensor) -> torch.Tensor:
    """Return the linear part of a norm at the divisor of its first position."""
    vectors = vectors - vectors.mean(-1, keepdim=True) if norm.centred else vectors
    return vectors * norm.gain[0]


def _layers(rest: BehindAttention, summed: torch.Tensor) -> tuple[FrozenNorm, list[torch.nn.Module]] | None:
    """Return the norm of the stream behind attention and the linear layers that read it and nothing else."""
    inside, at = set(rest.attention.modules()), some_positions(rest.block)
    given: list[tuple[torch.nn.Module, torch.Tensor]] = []
    answers: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def reading(module: torch.nn.Module) -> Callable[..., Any]:
        def note(args: Any, kwargs: Any) -> Any:
            if args:
                given.append((module, args[0]))
            return args, kwargs

        return note

    def giving(module: torch.nn.Module) -> Callable[..., Any]:
        def note(output: Any) -> Any:
            if isinstance(output, torch.Tensor):
                answers.append((module, output))
            return output

        return note

    modules = [module for module in rest.module.modules() if module not in inside]
    linear = [module for module in modules if type(module) in (torch.nn.Linear, Conv1D)]
    others = [module for module in modules if module not in set(linear) and not list(module.children())]
    hooks = [Hook(module, "input", reading(module)) for module in linear]
    with hooked([*hooks, *(Hook(module, "output", giving(module)) for module in others)]):
        rest(rest.block.attended[at], at)
    for norm, answer in answers:
        layers = [module for module, value in given if _same(value, answer)]
        once = len({id(module) for module, _ in given}) == len(given)
        if layers and once:
            try:
                frozen = frozen_norm(norm, summed[at])
            except (ModelError, RuntimeError):
                continue
            if agree(frozen(summed[at]) + frozen.bias, answer.reshape(len(at), -1).to(summed), rest.subject):
                return frozen, layers
    return None


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()


def _outputs(layer: torch.nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, torch.nn.Linear) else layer.nf)  # type: ignore[arg-type]
