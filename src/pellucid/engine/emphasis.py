"""Attention turned towards a part of the prompt: the pattern's other entries shrunk, and the rows normalised again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pellucid.models.edits import Context, Edit


def emphasis(heads: Sequence[tuple[int, int]], keys: Sequence[int], share: float) -> tuple[Edit, ...]:
    """Return the edits with which heads look at some positions: A_ij <- s_j A_ij / C_i, s_j = 1 there, else `share`.

    C_i makes each row sum to one again; rows that see none of the positions stay as they are (a common factor cancels).

    Args:
        heads: (layer, head) pairs.
        keys: the positions to look at.
        share: what is left of attention to other positions, relative; 1 changes nothing.
    """
    layers = sorted({layer for layer, _ in heads})
    wanted = {layer: sorted({head for at, head in heads if at == layer}) for layer in layers}
    kept = tuple(int(key) for key in keys)

    def reweigh(pattern: torch.Tensor, context: Context) -> torch.Tensor:
        factor = torch.full_like(pattern[0, 0], share)
        factor[[key for key in kept if key < len(factor)]] = 1.0
        weighed = pattern * factor
        total = weighed.sum(-1, keepdim=True)
        return torch.where(total > 0, weighed / total.clamp(min=torch.finfo(pattern.dtype).tiny), pattern)

    return tuple(Edit(f"blocks.{layer}.attn.pattern", reweigh, where={"head": wanted[layer]}) for layer in layers)
