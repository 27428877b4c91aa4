"""Transformed vectors: what each token adds to each token in every attention block, and where it goes from there.

The output of attention is a sum over tokens: out_i = sum_j sum_h alpha_ij^h v_j^h W_O^h + b_O. `attention_blocks` gives
its terms for every block, with the residual stream around them and the norms behind them as linear maps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import ModelError
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.frozen_norms import FrozenNorm, frozen_norm
from pellucid.models.layout import block_of, depth, main_stack, place, submodule

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """One block of one run: attention as a sum of vectors, and the stream around it; float32 or float64.

    `pattern` [head, query, key], `values` [key, head, dimension] (v_j^h W_O^h, value bias within, groups of heads
    written out), `bias` [dimension] of the output projection. `before` is the residual stream that enters, `attended`
    what the output projection gives, `update` what attention adds to the stream (behind a sub-layer norm, scaled),
    `middle` the stream behind it (behind its norm, in post-norm blocks), `feed_forward` what the feed-forward layer
    adds, `after` what leaves the block: all [position, dimension]. `sub_norm` is the norm inside the contribution,
    `middle_norm` and `last_norm` the norms of post-norm blocks; `scale` multiplies what is added.
    """

    pattern: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor
    before: torch.Tensor
    attended: torch.Tensor
    update: torch.Tensor
    middle: torch.Tensor
    feed_forward: torch.Tensor
    after: torch.Tensor
    sub_norm: FrozenNorm | None
    middle_norm: FrozenNorm | None
    last_norm: FrozenNorm | None
    scale: float
    parallel: bool

    def vectors(self, *, by_head: bool = False) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield some queries at a time with alpha_ij f(x_j), summed over heads: [queries, keys, dimension].

        With `by_head` they are [queries, keys, heads, dimension]. Exact: their sum over keys (and heads) and the bias
        are the output of attention, `attended`.
        """
        heads, queries, keys = self.pattern.shape
        step = max(1, NUMBERS_AT_ONCE // (keys * self.values.shape[-1] * (heads if by_head else 1)))
        for first in range(0, queries, step):
            rows = slice(first, min(queries, first + step))
            how = "hqk,khd->qkhd" if by_head else "hqk,khd->qkd"
            yield rows, torch.einsum(how, self.pattern[:, rows], self.values)

    def pairs(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return alpha_ij f(x_j), summed over heads, for pairs sorted by key: [pairs, dimension]."""
        found = self.values.new_zeros(len(query), self.values.shape[-1])
        return self.add_pairs(found, query, key, self.values)

    def add_pairs(
        self, start: torch.Tensor, query: torch.Tensor, key: torch.Tensor, parts: torch.Tensor, sign: float = 1.0
    ) -> torch.Tensor:
        """Add sum_h alpha_ij^h parts_j^h to `start` [pairs, size] in place, for pairs sorted by key; return it.

        `parts` are [key, head, size].
        """
        keys, counts = key.unique_consecutive(return_counts=True)
        first = 0
        for j, count in zip(keys.tolist(), counts.tolist(), strict=True):
            weights = self.pattern[:, query[first : first + count], j].T
            start[first : first + count].addmm_(weights, parts[j], alpha=sign)
            first += count
        return start

    def shares(self, *, normed: bool = True) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield some queries at a time with each token's share of `middle`: [queries, keys, dimension].

        The vectors go through the sub-layer norm, get the residual stream on the diagonal and, if `normed`, go through
        the norm behind the sum. Exact: shares sum to `middle` minus the biases on the way.
        """
        for rows, vectors in self.vectors():
            added = self.added(vectors, rows)
            index = torch.arange(rows.start, rows.stop, device=added.device)
            added[index - rows.start, index] += self.before[rows]
            bare = self.middle_norm is None or not normed
            yield rows, added if bare else self.middle_norm.rows(rows)(added)  # type: ignore[union-attr]

    def stream(self, attended: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the stream behind attention [vectors, dimension], had the output projection given `attended`.

        Exact: norms take their divisors anew.
        """
        added = self.scale * (attended if self.sub_norm is None else self.sub_norm.anew(attended))
        summed = self.before[positions] + added
        return summed if self.middle_norm is None else self.middle_norm.anew(summed)

    def added(self, vectors: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return what vectors [queries, ..., dimension] out of the output projection add to the residual stream."""
        normed = vectors if self.sub_norm is None else self.sub_norm.rows(rows)(vectors)
        return normed if self.scale == 1 else self.scale * normed


def proximity(parts: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return how near parts [rows, parts, dimension] come to their sum [rows, dimension]: [rows, parts].

    max(0, |whole|_1 - |whole - part|_1), divided by its sum over parts; |part|_1 takes its place where none comes near.
    """
    length = functools.partial(torch.linalg.vector_norm, ord=1, dim=-1)
    near = (length(whole)[:, None] - length(whole[:, None] - parts)).clamp(min=0)
    far = near.sum(-1) <= 0
    if bool(far.any()):
        near[far] = length(parts[far])
    return near / near.sum(-1, keepdim=True).clamp(min=1e-30)


def contributions(block: AttentionBlock) -> torch.Tensor:
    """Return how near each token's share comes to the stream behind attention: [query, key], rows sum to 1."""
    found = torch.zeros_like(block.pattern[0])
    for rows, shares in block.shares():
        found[rows] = proximity(shares, block.middle[rows])
    return found


def followed_stack(subject: Subject) -> str:
    """Return the stack that reads the prompt: the encoder's, where there are two."""
    name = main_stack(subject.need_layout())
    return "encoder" if name == "decoder" else name


@torch.no_grad()
def attention_blocks(subject: Subject, tokens: Tokens) -> list[AttentionBlock]:
    """Return every block of the stack that reads the prompt, bottom up; one forward pass.

    Raises:
        ModelError: the vectors do not add up to the block's output, as behind an edit of it.
    """
    name = followed_stack(subject)
    layout = subject.need_layout()
    stack = layout.stacks[name]
    raw = "attn.out_raw" if "attn.out_raw" in stack.taps else "attn.out"
    parts = ["resid_pre", "attn.v", "attn.pattern", raw, "attn.out", "mlp.out", "resid_post"]
    parts += [] if stack.parallel else ["resid_mid"]
    layers = range(depth(subject.model, layout, name))
    sites = {(layer, part): str(Site(name, layer, part)) for layer in layers for part in parts}
    found = capture(subject, tokens, list(dict.fromkeys(sites.values())))
    dtype = torch.float64 if subject.dtype == "float64" else torch.float32
    wide = {key: found[site].to(dtype) for key, site in sites.items()}
    with subject.lock:
        return [_block(subject, name, layer, {part: wide[layer, part] for part in parts}, raw) for layer in layers]


def _block(subject: Subject, name: str, layer: int, at: dict[str, torch.Tensor], raw: str) -> AttentionBlock:
    layout = subject.need_layout()
    stack = layout.stacks[name]
    block, _ = block_of(subject.model, stack, layer)
    projection = place(subject.model, layout, Site(name, layer, "attn.z")).module
    heads, width = at["attn.pattern"].shape[0], at["attn.v"].shape[-1]
    weight, bias = projected(projection, heads * width, at[raw])
    per_group = heads // at["attn.v"].shape[1]
    values = at["attn.v"].repeat_interleave(per_group, 1)
    values = torch.einsum("khw,hwd->khd", values, weight.view(heads, width, -1))
    _agree(torch.einsum("hqk,khd->qd", at["attn.pattern"], values) + bias, at[raw], layer, subject)
    before, update = at["resid_pre"], stack.residual_scale * at["attn.out"]
    added = stack.residual_scale * at["mlp.out"]
    middle_norm = _norm(block, stack.mid_norm, before + update)
    last_norm = _norm(block, stack.last_norm, at["resid_mid"] + added) if stack.last_norm else None
    sub_norm = None
    if raw != "attn.out":
        sub_norm = frozen_norm(place(subject.model, layout, Site(name, layer, "attn.out")).module, at[raw])
    middle = before + update if stack.parallel else at["resid_mid"]
    return AttentionBlock(
        at["attn.pattern"], values, bias, before, at[raw], update, middle, added, at["resid_post"], sub_norm,
        middle_norm, last_norm, stack.residual_scale, stack.parallel,
    )  # fmt: skip


def _norm(block: torch.nn.Module, path: str, inputs: torch.Tensor) -> FrozenNorm | None:
    return frozen_norm(submodule(block, path), inputs) if path else None


def projected(module: torch.nn.Module, width: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrix [width, dimension] and the bias of a linear module, whatever holds its weights."""
    weight = getattr(module, "weight", None)
    if type(module) is torch.nn.Linear and weight is not None and weight.device.type != "meta":
        bias = torch.zeros_like(like[0]) if module.bias is None else module.bias.detach().to(like)
        return weight.detach().T.to(like), bias
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), like.dtype)
    units = torch.eye(width, dtype=dtype, device=like.device)
    answers = module(torch.cat([torch.zeros_like(units[:1]), units])[None])[0].to(like)
    return answers[1:] - answers[0], answers[0]


def _agree(sums: torch.Tensor, output: torch.Tensor, layer: int, subject: Subject) -> None:
    eps = torch.finfo(getattr(torch, subject.dtype)).eps
    gap = float((sums - output).abs().max() / output.abs().max().clamp(min=1e-30))
    if not gap <= 2000 * max(eps, 1e-9):
        edited = ", ".join(edit.describe() for edit in subject.edits) or "none"
        raise ModelError(
            f"The vectors of block {layer} differ from its attention output by {gap:.2g} of it, so they cannot stand "
            f"for it (edits: {edited}); leave out edits of attn.z, attn.out_raw and attn.out."
        )
