"""Edges of attention taken out, as edits: which layers around one, and what a softmax without them needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.tokens import Tokens
from pellucid.engine.cone import score_edits
from pellucid.engine.cone_layers import score_from_layers
from pellucid.engine.readout import Readout
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


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


def score_cuts(subject: Subject, tokens: Tokens, readout: Readout, sets: Sequence[tuple[Edit, ...]]) -> np.ndarray:
    """Return the scores of the prompt under each set of cuts: [sets, readout.size], float64.

    Exact: blocks below a set's first cut hand on what they gave without any, so that a grid over layers costs about
    half of the full forwards. Whole forwards where a target has several tokens or the model is edited.
    """
    if subject.kind == "decoder" and not subject.edits and readout.forced == [()] and readout.kind == "next":
        return score_from_layers(subject, tokens, readout, sets)
    return score_edits(subject, tokens, readout, sets)
