"""Edges of attention taken out, as edits: which layers around one, and what a softmax without them needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pellucid.models.edits import Edit


def around(sites: Sequence[str], layer: int, window: int) -> Sequence[str]:
    """Return the sites of `window` layers around one, fewer at both ends."""
    first = max(0, layer - window // 2)
    return sites[first : max(first + 1, layer - window // 2 + window)]


def cut(site: str, seen: torch.Tensor, queries: Sequence[int], keys: Sequence[int], heads: Sequence[int]) -> list[Edit]:
    """Return the edits that keep queries from attending to keys in one layer; none where they do not anyway.

    Attention logits become -inf, so the other weights of a row share what is left; a query that is left with nothing
    gets no value from attention.

    Args:
        site: the layer's `attn.pattern` or `cross_attn.pattern`.
        seen: [query, key] booleans: for each of the queries the keys that it attends to.
        queries: positions that attend.
        keys: positions attended to.
        heads: heads that are cut.
    """
    there = [key for key in keys if bool(seen[:, key].any())]
    open_to = [q for q, row in zip(queries, seen, strict=True) if bool(row[there].any())]
    if not open_to:
        return []
    where = {"head": list(heads), "query": open_to, "key": there}
    edits = [Edit(site.replace("pattern", "scores"), "set", -math.inf, where)]
    left = seen.clone()
    left[:, there] = False
    blind = [q for q, row in zip(queries, left, strict=True) if q in open_to and not bool(row.any())]
    if blind:  # the softmax of nothing is undefined
        edits.append(Edit(site, "zero", where={"head": list(heads), "query": blind}))
    return edits
