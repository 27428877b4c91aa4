"""The position that a classification head on a decoder reads, the same in a batch as for one row alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pellucid.models.hooks import Hook, hooked


@contextmanager
def pooled(model: Any, rows: Sequence[Sequence[int]], offsets: Sequence[int]) -> Iterator[None]:
    """Let every row be classified where the model classifies that row alone, whatever the padding.

    The native heads score all positions and pick one by the padding id; without such an id they refuse batches. Here
    the scores of the right position are put at all positions, so that any choice is right; the scores themselves are
    the model's.

    The right position is the last one whose id is not the padding id of the config, or simply the last without one.

    Args:
        model: a decoder with a head `score`.
        rows: the token ids of each row, unpadded.
        offsets: where each row starts in the padded batch.
    """
    config = model.config.get_text_config()
    pad = config.pad_token_id
    chosen = [offset + _last(ids, pad) for ids, offset in zip(rows, offsets, strict=True)]

    def spread(scores: torch.Tensor) -> torch.Tensor:
        picked = scores[torch.arange(len(chosen), device=scores.device), torch.tensor(chosen, device=scores.device)]
        return picked.unsqueeze(1).expand_as(scores)

    try:
        if pad is None:
            config.pad_token_id = -1  # an id that no token has: the head then takes batches
        with hooked([Hook(model.score, "output", spread)]):
            yield
    finally:
        config.pad_token_id = pad


def _last(ids: Sequence[int], pad: int | None) -> int:
    return max((i for i, token in enumerate(ids) if token != pad), default=0)
